"""The table of docs/data.md is what its command prints: every shape in every form, from a folder and a web server."""

from __future__ import annotations

import pytest

from tests.paths import ROOT
from tests.stages.data.forms_table import BEGIN, END, SHAPES, head, table_row

COMMITTED = (ROOT / "docs" / "data.md").read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_read_in_each_form_as_the_docs_say(shape: str) -> None:
    made = table_row(shape)
    assert made in COMMITTED.splitlines()
    assert all(cell in ("6 of 6", "refused") for cell in made.strip("| ").split(" | ")[1:])


def test_the_docs_have_the_shapes_alone() -> None:
    assert COMMITTED.startswith(head())
    assert len(COMMITTED.splitlines()) == len(SHAPES) + 2
