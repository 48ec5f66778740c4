"""Each of LLaMA-Factory's templates learns what is asked, or the run ends before training."""

from __future__ import annotations

import pytest

from tests.paths import ROOT
from tests.stages.models.template_table import BEGIN, END, names, table

pytestmark = [
    pytest.mark.environment("llamafactory"), pytest.mark.e2e, pytest.mark.timeout(600),
    pytest.mark.filterwarnings("default"),
]  # fmt: skip


def test_the_committed_table_of_templates_is_what_the_command_prints_and_names_them_all() -> None:
    text = (ROOT / "docs" / "conversation.md").read_text(encoding="utf-8")
    made = table()
    assert text.partition(BEGIN)[2].partition(END)[0].strip() == made
    shown = {name for line in made.splitlines()[2:] for name in line.split("|")[2].partition(":")[2].split(",")}
    assert {name.strip() for name in shown} == set(names())
