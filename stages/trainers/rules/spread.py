"""Rules about a model that is spread over the workers, by FSDP or DeepSpeed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runner.errors import Problem, nearest
from runner.recipe.arguments import Entry, accepts, allowed
from stages.trainers.rules.conflicts import Conflict

Section = Mapping[str, Entry]
SIZE: Entry = {"type": "int", "ge": 1}
LIMIT: Entry = {"type": "int", "ge": 0}
FLAG: Entry = {"type": "bool"}
WRAPPED: Entry = {"type": "str|list"}  # names of classes

CONFLICTS = (
    Conflict(
        "deepspeed",
        lambda get: get("deepspeed") and get("fsdp"),
        "and fsdp exclude each other",
        "Remove one of them.",
    ),
    Conflict(
        "fsdp_config",
        lambda get: get("fsdp_config") and not get("fsdp"),
        "goes with fsdp only",
        "Set train.args.fsdp=full_shard.",
    ),
    Conflict(
        "load_best_model_at_end",
        lambda get: get("load_best_model_at_end") and (get("deepspeed") or get("fsdp")),
        "does not go with a model that is spread over the workers (deepspeed, fsdp): each has a part of the best",
        "Set it to false.",
    ),
)


def within(key: str, given: Mapping[str, Any], table: Section, trainer: str) -> Iterator[Problem]:
    """The settings of a mapping that the trainer does not take, or not with that value."""
    for name, value in given.items():
        if name not in table:
            guess = nearest(str(name), table)
            hint = f"Did you mean {key}.{guess}?" if guess else f"Remove it; there are: {', '.join(table)}."
            yield Problem(f"{key}.{name}", value, f"is not taken by train.trainer={trainer}", hint)
        elif not accepts(table[name], value):
            yield Problem(f"{key}.{name}", value, f"must be {allowed(table[name])}", "Change or remove it.")
