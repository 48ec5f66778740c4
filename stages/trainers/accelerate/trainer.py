"""What TRL on Accelerate gives to the stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from runner.pipeline.estimates.figure import Estimate, Known
from runner.pipeline.estimates.rates import Conditions
from runner.pipeline.optional import Rule
from runner.recipe.arguments.mapped import Mapped
from runner.recipe.schema import StageResources
from stages.models.trained import LongestRow, Trained
from stages.sections.recipe import Recipe
from stages.trainers import estimate, output
from stages.trainers.accelerate import config, packages, rules
from stages.trainers.accelerate.mappings import MAPPINGS
from stages.trainers.accelerate.setup import setup_of
from stages.trainers.accelerate.values import argument, translated
from stages.trainers.worker.environment import worker_env

if TYPE_CHECKING:
    from stages.models.chat_template import ChatTemplate
    from stages.samples.encoder import Encoder


class Accelerate:
    """A trainer by TRL's SFTTrainer, DPOTrainer and KTOTrainer."""

    environment: ClassVar[str | None] = packages.ENVIRONMENT
    libraries: ClassVar[tuple[str, ...]] = ("accelerate", "trl", "transformers", "peft", "torch")
    memory_hint: ClassVar[str] = config.MEMORY_HINT

    def rules(self) -> Sequence[Rule]:
        return rules.RULES

    def mappings(self) -> Sequence[Mapped]:
        return MAPPINGS

    def remarks(self, recipe: Recipe) -> Iterator[str]:
        yield from ()

    def canonical(self, recipe: Recipe) -> dict[str, Any]:
        """Arguments by TRL's names without those that have no effect; no rank where no adapter is trained."""
        args = translated(recipe.train.args)
        kept = {name: value for name, value in args.items() if name not in config.WITHOUT_EFFECT}
        if argument(recipe, "finetuning_type") == "lora":
            return {"train.args": kept}
        return {"train.args": kept, "train.lora_rank": None, "train.lora_target": None}

    def estimate(self, known: Known[Recipe]) -> Iterator[Estimate]:
        return estimate.train(known, setup_of(known.recipe))

    def adapter_bytes(self, known: Known[Recipe]) -> tuple[int, str] | str:
        return estimate.adapter_bytes(known, setup_of(known.recipe))

    def speed_conditions(self, values: Mapping[str, Any]) -> Conditions:
        return estimate.speed_conditions(values)

    def trained(self, recipe: Recipe) -> Trained:
        return rules.trained(recipe)

    def longest_row(self, recipe: Recipe) -> LongestRow | None:
        return rules.longest_row(recipe)

    def prepare(self) -> Callable[[Recipe, str, str, str], dict[str, Any]]:
        from stages.trainers.accelerate.tokens import tokenize

        return tokenize

    def encoder(self, recipe: Recipe, template: ChatTemplate) -> Encoder:
        from stages.trainers.accelerate.tokens import encoder_of

        return encoder_of(recipe, template)

    def row_remarks(self, figures: Mapping[str, Any], recipe: Recipe) -> list[str]:
        from stages.samples.dataset import remarks

        return remarks(dict(figures), recipe.train.too_long)

    def arguments(
        self, recipe: Recipe, *, model: str, dataset_dir: str, output_dir: str, tokens: str
    ) -> dict[str, Any]:
        return config.trl_args(recipe, model=model, dataset_dir=dataset_dir, output_dir=output_dir, tokens=tokens)

    def worker_env(self, resources: StageResources) -> dict[str, str]:
        return worker_env(resources)

    def worker(self) -> Callable[[dict[str, Any]], None]:
        from stages.trainers.accelerate.worker import train_loop

        return train_loop

    def shards(self, args: Mapping[str, Any]) -> bool:
        return bool(args["config"].get("deepspeed") or args["config"].get("fsdp"))

    def is_model_file(self, path: Path, *, code: bool = False) -> bool:
        return output.is_model_file(path, code=code)

    def log_points(self, log: Path) -> list[dict[str, Any]]:
        return output.log_points(log)
