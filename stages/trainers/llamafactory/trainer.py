"""What LLaMA-Factory gives to the stages."""

from __future__ import annotations

from collections.abc import Sequence

from runner.pipeline.optional import Rule
from runner.recipe.arguments.mapped import Mapped
from stages.trainers.llamafactory.mappings import MAPPINGS
from stages.trainers.llamafactory.rules import RULES
from stages.trainers.llamafactory.templates import template_fits_model


class LlamaFactory:
    """A trainer by LLaMA-Factory's own training function."""

    def rules(self) -> Sequence[Rule]:
        return (*RULES, template_fits_model)

    def mappings(self) -> Sequence[Mapped]:
        return MAPPINGS
