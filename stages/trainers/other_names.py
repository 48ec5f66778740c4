"""Names of LLaMA-Factory's arguments that another trainer takes for its own: a recipe changes it by one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from runner.errors import Problem
from runner.pipeline.optional import Rule
from stages.sections.recipe import Recipe

_ATTENTION = {"disabled": "eager", "sdpa": "sdpa", "fa2": "flash_attention_2", "fa3": "flash_attention_3"}


class Same(NamedTuple):
    """name: the trainer's. value: from LLaMA-Factory's value to the trainer's."""

    name: str
    value: Callable[[Any], Any] = lambda value: value


SAME = {
    "disable_gradient_checkpointing": Same("gradient_checkpointing", lambda value: not value),
    "flash_attn": Same(
        "attn_implementation", lambda value: _ATTENTION.get(value, value) if isinstance(value, str) else value
    ),
}
"""What transformers' trainers have in common."""


def translated(args: Mapping[str, Any], names: Mapping[str, Same]) -> dict[str, Any]:
    """The arguments by the trainer's names, without those that are not given (null)."""
    found = {}
    for name, value in args.items():
        if value is not None:
            same = names.get(name, Same(name))
            found[same.name] = same.value(value)
    return found


def not_doubled(names: Mapping[str, Same]) -> Rule:
    """The rule against an argument by LLaMA-Factory's name and by the trainer's at once."""

    def names_are_not_doubled(recipe: Recipe) -> Iterator[Problem]:
        args = recipe.train.args
        for name, same in names.items():
            if args.get(name) is not None and args.get(same.name) is not None:
                message = f"is LLaMA-Factory's name of train.args.{same.name}, which the recipe sets, too"
                yield Problem(f"train.args.{name}", args[name], message, "Remove one of them.")

    return names_are_not_doubled
