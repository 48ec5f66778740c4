"""A shipped recipe with some values changed, and the problems that it then has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from runner import testing
from runner.errors import Problem
from runner.recipe.load import Composed

QUICKSTART = "viggo_quickstart"
QWEN = "viggo_qwen7b"


@cache
def _composed(recipe: str) -> Composed:
    return testing.composed(recipe, "storage.artifacts=s3://bucket/prefix")


def changed(changes: Mapping[str, Any], recipe: str = QUICKSTART) -> Composed:
    """The composed recipe with other values at dotted keys, as if its files set them."""
    return testing.changed(_composed(recipe), changes)


def given(changes: Mapping[str, Any], recipe: str = QUICKSTART) -> Composed:
    """The composed recipe with other values, as if the command line set them."""
    return replace(changed(changes, recipe), recorded=True)


def problems(changes: Mapping[str, Any], recipe: str = QUICKSTART, trust: str = "") -> dict[str, Problem]:
    """Problems by key; {} when the recipe is valid. trust: a key that the command line trusts."""
    made = changed(changes, recipe)
    if trust:
        made = replace(
            made, values={**made.values, "trust": [trust]}, overrides=[*made.overrides, f"trust=['{trust}']"]
        )
    return testing.problems_of(made)
