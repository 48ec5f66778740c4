"""The table of docs/conversation.md is what its command prints, and says of no family that its tokens differ."""

from __future__ import annotations

import pytest

from tests.paths import ROOT
from tests.stages.models.family_table import BEGIN, END, table

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.environment("engine"),
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("default"),
]


def test_the_committed_table_of_families_is_what_the_command_prints() -> None:
    text = (ROOT / "docs" / "conversation.md").read_text(encoding="utf-8")
    made = table()
    assert text.partition(BEGIN)[2].partition(END)[0].strip() == made
    assert "DIFFERENT" not in made
    assert made.count("equal, ") >= 10
