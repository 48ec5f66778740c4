"""What LLaMA-Factory gives to the stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from runner.pipeline.optional import Rule
from runner.recipe.arguments.mapped import Mapped
from stages.models.trained import TraitName
from stages.sections.recipe import Recipe
from stages.trainers.llamafactory import arguments, packages, rules
from stages.trainers.llamafactory.mappings import MAPPINGS
from stages.trainers.llamafactory.setup import setup_of
from stages.trainers.llamafactory.values import argument
from stages.trainers.memory import Setup
from stages.trainers.on_transformers import OnTransformers

if TYPE_CHECKING:
    from stages.models.chat_template import ChatTemplate
    from stages.samples.encoder import Encoder


class LlamaFactory(OnTransformers):
    """A trainer by LLaMA-Factory's own training function."""

    environment: ClassVar[str | None] = packages.ENVIRONMENT
    imports: ClassVar[tuple[str, ...]] = (*OnTransformers.imports, "matplotlib.pyplot", "omegaconf")
    libraries: ClassVar[tuple[str, ...]] = ("llamafactory", "transformers", "peft", "torch")
    memory_hint: ClassVar[str] = arguments.MEMORY_HINT
    without_effect: ClassVar[tuple[str, ...]] = arguments.WITHOUT_EFFECT
    traits: ClassVar[dict[str, TraitName]] = {
        "additional_target": "whole modules",
        "resize_vocab": "new embeddings",
        "use_dora": "dora",
        "pissa_init": "changed base",
        "train_from_scratch": "changed base",
        "rope_scaling": "changed base",
        "freeze_vision_tower": "sight",
        "freeze_multi_modal_projector": "sight",
    }
    packing: ClassVar[tuple[str, ...]] = ("packing", "neat_packing")
    lora_arguments: ClassVar[dict[str, str]] = {
        **{name: name for name in ("lora_alpha", "lora_dropout", "use_rslora", "use_dora")},
        "modules_to_save": "additional_target",
    }

    def argument(self, recipe: Recipe, name: str) -> Any:
        return argument(recipe, name)

    def setup(self, recipe: Recipe) -> Setup:
        return setup_of(recipe)

    def given(self, recipe: Recipe) -> dict[str, Any]:
        return {name: value for name, value in recipe.train.args.items() if value is not None}

    def row_length(self, recipe: Recipe) -> tuple[str, Any]:
        return "cutoff_len", recipe.train.args.get("cutoff_len")

    def rules(self) -> Sequence[Rule]:
        return rules.RULES

    def mappings(self) -> Sequence[Mapped]:
        return MAPPINGS

    def remarks(self, recipe: Recipe) -> Iterator[str]:
        yield from ()

    def prepare(self) -> Callable[[Recipe, str, str, str], dict[str, Any]]:
        from stages.trainers.llamafactory.tokens import tokenize

        return tokenize

    def encoder(self, recipe: Recipe, template: ChatTemplate) -> Encoder:
        from stages.trainers.llamafactory.tokens import encoder_of

        return encoder_of(recipe, template)

    def arguments(
        self, recipe: Recipe, *, model: str, dataset_dir: str, output_dir: str, tokens: str, start: str | None = None
    ) -> dict[str, Any]:
        return arguments.llamafactory_args(
            recipe, model=model, dataset_dir=dataset_dir, output_dir=output_dir, tokens=tokens, start=start
        )

    def worker(self) -> Callable[[dict[str, Any]], None]:
        from stages.trainers.llamafactory.loop import train_loop

        return train_loop

    def shards(self, args: Mapping[str, Any]) -> bool:
        return bool(args.get("deepspeed") or args.get("fsdp"))
