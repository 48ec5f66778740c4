"""What axolotl gives to the stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from runner.pipeline.optional import Rule
from runner.recipe.arguments.mapped import Mapped
from runner.recipe.schema import StageResources
from stages.models.trained import TraitName
from stages.sections.recipe import Recipe
from stages.trainers.axolotl import config, packages, rules
from stages.trainers.axolotl.mappings import MAPPINGS
from stages.trainers.axolotl.setup import setup_of
from stages.trainers.axolotl.values import argument, name_in, translated
from stages.trainers.memory import Setup
from stages.trainers.on_transformers import OnTransformers

if TYPE_CHECKING:
    from stages.models.chat_template import ChatTemplate
    from stages.samples.encoder import Encoder

# axolotl reports what it trains to its makers unless it is told not to, and asks a hub for kernels and names.
_ALONE = {"AXOLOTL_DO_NOT_TRACK": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
# axolotl has Accelerate look for its workers once more, and forget what it was told of CPUs.
_ON_CPUS = {"ACCELERATE_USE_CPU": "true"}


class Axolotl(OnTransformers):
    """A trainer by axolotl's training function."""

    environment: ClassVar[str | None] = packages.ENVIRONMENT
    libraries: ClassVar[tuple[str, ...]] = ("axolotl", "transformers", "peft", "accelerate", "torch")
    memory_hint: ClassVar[str] = config.MEMORY_HINT
    without_effect: ClassVar[tuple[str, ...]] = config.WITHOUT_EFFECT
    traits: ClassVar[dict[str, TraitName]] = {"lora_modules_to_save": "whole modules", "peft_use_dora": "dora"}
    packing: ClassVar[tuple[str, ...]] = ()
    lora_arguments: ClassVar[dict[str, str]] = {
        **{name: name for name in ("lora_alpha", "lora_dropout")},
        **{f"use_{name}": f"peft_use_{name}" for name in ("rslora", "dora")},
        "modules_to_save": "lora_modules_to_save",
    }

    def argument(self, recipe: Recipe, name: str) -> Any:
        return argument(recipe, name)

    def setup(self, recipe: Recipe) -> Setup:
        return setup_of(recipe)

    def given(self, recipe: Recipe) -> dict[str, Any]:
        return translated(recipe.train.args)

    def row_length(self, recipe: Recipe) -> tuple[str, Any]:
        return name_in(recipe, "sequence_len"), self.given(recipe).get("sequence_len")

    def rules(self) -> Sequence[Rule]:
        return rules.RULES

    def mappings(self) -> Sequence[Mapped]:
        return MAPPINGS

    def remarks(self, recipe: Recipe) -> Iterator[str]:
        resources = recipe.resources_of("train")
        if argument(recipe, "gradient_accumulation_steps") * resources.most_workers > 1:
            yield "axolotl weighs the batches of a step alike, other trainers by their numbers of learned tokens"
        if argument(recipe, "finetuning_type") == "full" and argument(recipe, "bf16"):
            yield "axolotl holds the weights that it trains in bfloat16, other trainers in float32"
        if resources.gpus_per_worker:
            yield "train.trainer=axolotl has been tried on CPUs only"

    def prepare(self) -> Callable[[Recipe, str, str, str], dict[str, Any]]:
        from stages.trainers.axolotl.tokens import tokenize

        return tokenize

    def encoder(self, recipe: Recipe, template: ChatTemplate) -> Encoder:
        from stages.trainers.axolotl.tokens import encoder_of

        return encoder_of(recipe, template)

    def arguments(
        self, recipe: Recipe, *, model: str, dataset_dir: str, output_dir: str, tokens: str, start: str | None = None
    ) -> dict[str, Any]:
        args = config.axolotl_args(recipe, model=model, dataset_dir=dataset_dir, output_dir=output_dir, tokens=tokens)
        return {**args, "start": start}

    def worker_env(self, resources: StageResources) -> dict[str, str]:
        found = {**super().worker_env(resources), **_ALONE}
        return found if resources.gpus_per_worker else {**found, **_ON_CPUS}

    def worker(self) -> Callable[[dict[str, Any]], None]:
        from stages.trainers.axolotl.worker import train_loop

        return train_loop

    def shards(self, args: Mapping[str, Any]) -> bool:
        return False
