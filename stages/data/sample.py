"""The first row of a split as an Example, for rules."""

from __future__ import annotations

from contextlib import suppress

from runner.errors import RunnerError
from stages.data.example import BadRowError, Example
from stages.data.look import first_row
from stages.data.shapes.convert import make_example
from stages.sections.recipe import Recipe


def first_example(recipe: Recipe, split: str) -> Example | None:
    """None where the row cannot be seen here or cannot be used, which other rules and ingest tell."""
    row = first_row(recipe, split)
    if row is None:
        return None
    with suppress(BadRowError, RunnerError, AssertionError, ValueError):
        return make_example(recipe.dataset, recipe.train.stage, split, keep_columns=False)(row, "0", split)
    return None
