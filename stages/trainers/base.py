"""What a trainer is, and which there are.

A trainer is a folder here: pure functions of the recipe that say what its library is told, what must hold, and what a
training will leave, and a worker that trains. Everything is imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from runner.pipeline.estimates.figure import Estimate, Known
from runner.pipeline.estimates.rates import Conditions
from runner.pipeline.optional import Rule
from runner.recipe.arguments.mapped import Mapped

if TYPE_CHECKING:
    from runner.recipe.schema import Recipe

TRAINERS = {"llamafactory": "stages.trainers.llamafactory.trainer:LlamaFactory"}


class Trainer(Protocol):
    """What the stages ask a trainer for."""

    def rules(self) -> Sequence[Rule]:
        """Rules about the keys that only this trainer reads."""

    def remarks(self, recipe: Recipe) -> Iterator[str]:
        """What a person should know of a valid recipe's training before it runs."""

    def mappings(self) -> Sequence[Mapped]:
        """Keys of the recipe whose values go to the library as they are."""

    def estimate(self, known: Known) -> Iterator[Estimate]:
        """What training will take."""

    def adapter_bytes(self, known: Known) -> tuple[int, str] | str:
        """Bytes of the adapter to come and what they are, or why they are not known."""

    def speed_conditions(self, values: Mapping[str, Any]) -> Conditions:
        """What a rate of training depends on. values: a recipe's as plain values, perhaps of an earlier run."""


@cache
def load_trainer(name: str = "llamafactory") -> Trainer:
    """The trainer of that name in TRAINERS."""
    module, _, member = TRAINERS[name].partition(":")
    trainer: Trainer = getattr(import_module(module), member)()
    return trainer
