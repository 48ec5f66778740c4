"""The values that LLaMA-Factory will use for what a recipe leaves out."""

from __future__ import annotations

from typing import Any

from stages.sections.recipe import Recipe
from stages.trainers.llamafactory.arguments import defaults_of
from stages.trainers.llamafactory.mappings import LLAMAFACTORY


def argument(recipe: Recipe, name: str) -> Any:
    """The value that LLaMA-Factory will use: of `train.args`, else the runner's default, else its own."""
    value, defaults = recipe.train.args.get(name), defaults_of(recipe)
    if value is None and name in defaults:
        return defaults[name]
    return LLAMAFACTORY.table("arguments")[name].get("default") if value is None else value
