"""What trainers by a library on transformers' Trainer have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from runner.pipeline.estimates.figure import Estimate, Known
from runner.pipeline.estimates.rates import Conditions
from runner.recipe.schema import StageResources
from stages.models.trained import LongestRow, Trained, Trait, TraitName
from stages.sections.recipe import Recipe
from stages.trainers import estimate, output
from stages.trainers.memory import Setup
from stages.trainers.rules.conflicts import Argument
from stages.trainers.worker.environment import worker_env


def setup_of(
    recipe: Recipe, argument: Argument, *, length: str, uncounted: Sequence[str], rows_by: Sequence[str], **own: Any
) -> Setup:
    """What decides on the memory and the steps of the recipe's training. argument: of the trainer.

    length: argument for the length of a row. uncounted, rows_by: arguments that are named by the setup where they are
    set. own: fields of the setup that have other arguments in each library.
    """
    return Setup(
        kind=argument(recipe, "finetuning_type"),
        batch=int(argument(recipe, "per_device_train_batch_size")),
        gather=int(argument(recipe, "gradient_accumulation_steps")),
        length=int(argument(recipe, length)),
        max_steps=max(0, int(argument(recipe, "max_steps"))),
        optimizer=argument(recipe, "optim"),
        weights_only=bool(argument(recipe, "save_only_model")),
        half=bool(argument(recipe, "bf16") or argument(recipe, "fp16")),
        uncounted=_first(recipe, argument, uncounted),
        rows_by=_first(recipe, argument, rows_by),
        **own,
    )


def _first(recipe: Recipe, argument: Argument, names: Sequence[str]) -> str:
    """The first of the arguments that is set, "" for none."""
    return next((name for name in names if argument(recipe, name)), "")


class OnTransformers(ABC):
    """A trainer whose library builds on transformers' Trainer.

    without_effect: arguments that do not change what is trained. traits: what an engine may refuse of an adapter, by
    the argument that asks for it. packing: arguments that pack rows. lora_arguments: PEFT's names of an adapter's
    settings -> arguments; {}: it continues no adapter.
    """

    imports: ClassVar[tuple[str, ...]] = ("transformers.trainer", "peft", "datasets")
    without_effect: ClassVar[Collection[str]]
    traits: ClassVar[Mapping[str, TraitName]]
    packing: ClassVar[Sequence[str]] = ("packing",)
    lora_arguments: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def argument(self, recipe: Recipe, name: str) -> Any:
        """The value that the library will use."""

    @abstractmethod
    def setup(self, recipe: Recipe) -> Setup:
        """What decides on the memory and the steps of the recipe's training."""

    @abstractmethod
    def given(self, recipe: Recipe) -> dict[str, Any]:
        """The arguments that the recipe sets, by the library's names."""

    @abstractmethod
    def row_length(self, recipe: Recipe) -> tuple[str, Any]:
        """The argument that limits the tokens of a row, by the recipe's name, and its value in the recipe or None."""

    def canonical(self, recipe: Recipe) -> dict[str, Any]:
        """Arguments without those that have no effect; no rank where no adapter is trained."""
        kept = {name: value for name, value in self.given(recipe).items() if name not in self.without_effect}
        if self.argument(recipe, "finetuning_type") == "lora":
            return {"train.args": kept}
        return {"train.args": kept, "train.lora_rank": None, "train.lora_target": None}

    def estimate(self, known: Known[Recipe]) -> Iterator[Estimate]:
        return estimate.train(known, self.setup(known.recipe))

    def adapter_bytes(self, known: Known[Recipe]) -> tuple[int, str] | str:
        return estimate.adapter_bytes(known, self.setup(known.recipe))

    def speed_conditions(self, values: Mapping[str, Any]) -> Conditions:
        return estimate.speed_conditions(values)

    def trained(self, recipe: Recipe) -> Trained:
        kind = self.argument(recipe, "finetuning_type")
        given = ((name, trait, self.argument(recipe, name)) for name, trait in self.traits.items())
        found = (each for each in given if bool(each[2]) is (each[1] != "sight"))  # asked for by a false
        traits = tuple(Trait(trait, f"train.args.{name}", value) for name, trait, value in found)
        return Trained("adapter" if kind == "lora" else "model", "train.args.finetuning_type", kind, traits)

    def lora_settings(self, recipe: Recipe) -> dict[str, tuple[str, Any]]:
        if not self.lora_arguments:
            return {}
        rank = recipe.train.lora_rank
        found = {name: (f"train.args.{own}", self.argument(recipe, own)) for name, own in self.lora_arguments.items()}
        key, alpha = found["lora_alpha"]
        return {**found, "r": ("train.lora_rank", rank), "lora_alpha": (key, alpha or 2 * rank)}

    def longest_row(self, recipe: Recipe) -> LongestRow | None:
        """None where the recipe names no length, or rows are packed and it is a pack's."""
        name, length = self.row_length(recipe)
        if any(self.argument(recipe, each) for each in self.packing):
            return None
        if not isinstance(length, int) or isinstance(length, bool) or length <= 0:
            return None
        return LongestRow(length, f"train.args.{name}")

    def row_remarks(self, figures: Mapping[str, Any], recipe: Recipe) -> list[str]:
        from stages.samples.dataset import remarks

        return remarks(dict(figures), recipe.train.too_long, recipe.train.stage)

    def worker_env(self, resources: StageResources) -> dict[str, str]:
        return worker_env(resources)

    def is_model_file(self, path: Path, *, code: bool = False) -> bool:
        return output.is_model_file(path, code=code)

    def log_points(self, log: Path) -> list[dict[str, Any]]:
        return output.log_points(log)
