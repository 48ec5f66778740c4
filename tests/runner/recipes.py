"""A shipped recipe with some values changed, and the problems that it then has."""

from __future__ import annotations

from collections.abc import Mapping
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
    """The composed recipe with other values at dotted keys, as if its files said so."""
    return testing.changed(_composed(recipe), changes)


def problems(changes: Mapping[str, Any], recipe: str = QUICKSTART) -> dict[str, Problem]:
    """Problems by key; {} when the recipe is valid."""
    return testing.problems_of(changed(changes, recipe))
