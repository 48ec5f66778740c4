"""What TRL on Accelerate gives to the stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from runner.pipeline.optional import Rule
from runner.recipe.arguments.mapped import Mapped
from stages.models.trained import TraitName
from stages.sections.recipe import Recipe
from stages.trainers.accelerate import config, packages, rules
from stages.trainers.accelerate.mappings import MAPPINGS
from stages.trainers.accelerate.setup import setup_of
from stages.trainers.accelerate.values import argument, length_name, translated
from stages.trainers.memory import Setup
from stages.trainers.on_transformers import OnTransformers

if TYPE_CHECKING:
    from stages.models.chat_template import ChatTemplate
    from stages.samples.encoder import Encoder


class Accelerate(OnTransformers):
    """A trainer by TRL's SFTTrainer, DPOTrainer and KTOTrainer."""

    environment: ClassVar[str | None] = packages.ENVIRONMENT
    libraries: ClassVar[tuple[str, ...]] = ("accelerate", "trl", "transformers", "peft", "torch")
    memory_hint: ClassVar[str] = config.MEMORY_HINT
    without_effect: ClassVar[tuple[str, ...]] = config.WITHOUT_EFFECT
    traits: ClassVar[dict[str, TraitName]] = {"lora_modules_to_save": "whole modules", "use_dora": "dora"}
    lora_arguments: ClassVar[dict[str, str]] = {
        **{name: name for name in ("lora_alpha", "lora_dropout", "use_rslora", "use_dora")},
        "modules_to_save": "lora_modules_to_save",
    }

    def argument(self, recipe: Recipe, name: str) -> Any:
        return argument(recipe, name)

    def setup(self, recipe: Recipe) -> Setup:
        return setup_of(recipe)

    def given(self, recipe: Recipe) -> dict[str, Any]:
        return translated(recipe.train.args)

    def row_length(self, recipe: Recipe) -> tuple[str, Any]:
        return length_name(recipe), self.given(recipe).get("max_length")

    def rules(self) -> Sequence[Rule]:
        return rules.RULES

    def mappings(self) -> Sequence[Mapped]:
        return MAPPINGS

    def remarks(self, recipe: Recipe) -> Iterator[str]:
        yield from ()

    def prepare(self) -> Callable[[Recipe, str, str, str], dict[str, Any]]:
        from stages.trainers.accelerate.tokens import tokenize

        return tokenize

    def encoder(self, recipe: Recipe, template: ChatTemplate) -> Encoder:
        from stages.trainers.accelerate.tokens import encoder_of

        return encoder_of(recipe, template)

    def arguments(
        self, recipe: Recipe, *, model: str, dataset_dir: str, output_dir: str, tokens: str, start: str | None = None
    ) -> dict[str, Any]:
        args = config.trl_args(recipe, model=model, dataset_dir=dataset_dir, output_dir=output_dir, tokens=tokens)
        return {**args, "start": start}

    def worker(self) -> Callable[[dict[str, Any]], None]:
        from stages.trainers.accelerate.worker import train_loop

        return train_loop

    def shards(self, args: Mapping[str, Any]) -> bool:
        return bool(args["config"].get("deepspeed") or args["config"].get("fsdp"))
