"""What LLaMA-Factory gives to the stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runner.pipeline.estimates.figure import Estimate, Known
from runner.pipeline.estimates.rates import Conditions
from runner.pipeline.optional import Rule
from runner.recipe.arguments.mapped import Mapped
from runner.recipe.schema import Recipe
from stages.trainers.llamafactory import estimate, packages
from stages.trainers.llamafactory.mappings import MAPPINGS
from stages.trainers.llamafactory.rules import RULES


class LlamaFactory:
    """A trainer by LLaMA-Factory's own training function."""

    def rules(self) -> Sequence[Rule]:
        return RULES

    def remarks(self, recipe: Recipe) -> Iterator[str]:
        return packages.remarks(recipe)

    def mappings(self) -> Sequence[Mapped]:
        return MAPPINGS

    def estimate(self, known: Known) -> Iterator[Estimate]:
        return estimate.train(known)

    def adapter_bytes(self, known: Known) -> tuple[int, str] | str:
        return estimate.adapter_bytes(known)

    def speed_conditions(self, values: Mapping[str, Any]) -> Conditions:
        return estimate.speed_conditions(values)
