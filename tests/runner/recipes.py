"""A shipped recipe with some values changed, and the problems that it then has."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from typing import Any

from runner.cli import load
from runner.errors import Problem, RecipeError
from runner.resolve import Composed, compose

QUICKSTART = "viggo_quickstart"
QWEN = "viggo_qwen7b"


@cache
def _composed(recipe: str) -> Composed:
    return compose([f"recipe={recipe}", "storage.artifacts=s3://bucket/prefix"])


def changed(changes: Mapping[str, Any], recipe: str = QUICKSTART) -> Composed:
    """The composed recipe with other values at dotted keys, as if its files said so."""
    composed = deepcopy(_composed(recipe))
    for dotted, value in changes.items():
        *parents, name = dotted.split(".")
        section = composed.values
        for parent in parents:
            section = section.setdefault(parent, {})
        section[name] = value
    return composed


def problems(changes: Mapping[str, Any], recipe: str = QUICKSTART) -> dict[str, Problem]:
    """Problems by key; {} when the recipe is valid."""
    found: list[Problem] = []
    try:
        load(changed(changes, recipe))
    except RecipeError as error:
        found = error.problems
    by_key = {problem.key: problem for problem in found}
    assert len(by_key) == len(found), found
    return by_key
