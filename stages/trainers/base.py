"""What a trainer is, and which there are.

A trainer is a folder here: pure functions of the recipe that say what its library is told, what must hold, and what a
training will leave, and a worker that trains. Everything is imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Protocol

from runner.pipeline.optional import Rule
from runner.recipe.arguments.mapped import Mapped

TRAINERS = {"llamafactory": "stages.trainers.llamafactory.trainer:LlamaFactory"}


class Trainer(Protocol):
    """What the stages ask a trainer for."""

    def rules(self) -> Sequence[Rule]:
        """Rules about the keys that only this trainer reads."""

    def mappings(self) -> Sequence[Mapped]:
        """Keys of the recipe whose values go to the library as they are."""


@cache
def load_trainer(name: str = "llamafactory") -> Trainer:
    """The trainer of that name in TRAINERS."""
    module, _, member = TRAINERS[name].partition(":")
    trainer: Trainer = getattr(import_module(module), member)()
    return trainer
