"""What an inference engine is, and which there are.

An engine is a folder here: pure functions of the recipe that say what the engine is told, what must hold and what it
takes, and what runs in its processes. Everything is imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, Protocol

from runner.pipeline.estimates.figure import Estimate, Known
from runner.pipeline.optional import Rule
from runner.recipe.arguments.mapped import Mapped

ENGINES = {"vllm": "stages.engines.vllm.engine:Vllm"}


class Engine(Protocol):
    """What the stages ask an engine for."""

    def rules(self) -> Sequence[Rule]:
        """Rules about the keys that only this engine reads, in batch inference and at the endpoint."""

    def batch_mappings(self) -> Sequence[Mapped]:
        """Keys of batch inference whose values go to the engine as they are."""

    def server_mappings(self) -> Sequence[Mapped]:
        """Keys of the endpoint whose values go to the engine as they are."""

    def ranks(self, kwargs: Mapping[str, Any]) -> int:
        """Processes of one engine with these arguments, each of which computes on a GPU of its own."""

    def batch_estimate(self, known: Known) -> Iterator[Estimate]:
        """Memory of an engine of batch inference."""

    def server_estimate(self, known: Known) -> Iterator[Estimate]:
        """Memory of an engine of the endpoint."""


@cache
def load_engine(name: str = "vllm") -> Engine:
    """The engine of that name in ENGINES."""
    module, _, member = ENGINES[name].partition(":")
    engine: Engine = getattr(import_module(module), member)()
    return engine
