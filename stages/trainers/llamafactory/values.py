"""The values that LLaMA-Factory will use for what a recipe leaves out."""

from __future__ import annotations

from typing import Any

from stages.sections.recipe import Recipe
from stages.trainers.llamafactory.arguments import DEFAULTS
from stages.trainers.llamafactory.mappings import LLAMAFACTORY


def argument(recipe: Recipe, name: str) -> Any:
    """The value that LLaMA-Factory will use: of `train.args`, else the runner's default, else its own."""
    value = recipe.train.args.get(name)
    if value is None and name in DEFAULTS:
        return DEFAULTS[name]
    return LLAMAFACTORY.table("arguments")[name].get("default") if value is None else value
