"""What vLLM gives to the stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

from runner.pipeline.estimates.figure import Estimate, Known
from runner.pipeline.optional import Rule
from runner.recipe.arguments.mapped import Mapped
from stages.engines.vllm import estimate
from stages.engines.vllm.mappings import BATCH_MAPPINGS, SERVER_MAPPINGS
from stages.engines.vllm.rules import RULES


class Vllm:
    """Batch inference and serving by vLLM."""

    def rules(self) -> Sequence[Rule]:
        return RULES

    def batch_mappings(self) -> Sequence[Mapped]:
        return BATCH_MAPPINGS

    def server_mappings(self) -> Sequence[Mapped]:
        return SERVER_MAPPINGS

    def ranks(self, kwargs: Mapping[str, Any]) -> int:
        sizes = (kwargs.get(name) for name in ("tensor_parallel_size", "pipeline_parallel_size"))
        return prod(size for size in sizes if isinstance(size, int) and size > 0)

    def batch_estimate(self, known: Known) -> Iterator[Estimate]:
        return estimate.batch(known)

    def server_estimate(self, known: Known) -> Iterator[Estimate]:
        return estimate.server(known)
