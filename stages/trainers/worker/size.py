"""A training whose number of workers has changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

GATHERS = "gradient_accumulation_steps"


def for_workers(args: Mapping[str, Any], within: Sequence[str], most: int, now: int) -> dict[str, Any]:
    """The trainer's arguments with which a step of `now` workers learns from the rows that one of `most` would.

    Each gathers the gradients of more batches. within: names of the mappings, one in the other, that hold the argument.
    Raises ValueError where the batches cannot be shared evenly.
    """
    if most == now:
        return dict(args)
    if within:
        first, *rest = within
        return {**args, first: for_workers(args[first], rest, most, now)}
    batches = int(args.get(GATHERS) or 1) * most
    if batches % now:
        raise ValueError(f"{batches} batches of a step for {now} workers")
    return {**args, GATHERS: batches // now}
