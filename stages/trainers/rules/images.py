"""Rules about rows with images: which trainers and models learn them, and how."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from runner.errors import Problem
from runner.pipeline.optional import Rule
from stages.data.sample import first_example
from stages.models.chat.template_here import tokenizer_folder
from stages.models.vision import model_type_of_vision
from stages.sections.recipe import Recipe


def learns_images(kinds: Collection[str]) -> Rule:
    """A rule for a trainer that learns the images of these kinds of models (`model_type`); none without any."""

    def images_can_be_learned(recipe: Recipe) -> Iterator[Problem]:
        example = first_example(recipe, "train") if "train" in recipe.pipeline else None
        if example is None or not example.images:
            return
        if not kinds:
            hint = "Set train.trainer=llamafactory."
            yield Problem("train.trainer", recipe.train.trainer, "learns no images, and the rows have them", hint)
        for key, value, hint in _against(recipe):
            yield Problem(key, value, "does not go with rows that have images", hint)
        folder = tokenizer_folder(recipe)
        kind = model_type_of_vision(folder) if folder is not None else None
        if kind is not None and kinds and kind not in kinds:
            hint = f"Take a model of one of these: {', '.join(kinds)}."
            yield Problem(
                "model.source", recipe.model.source, f"is of the type {kind}, whose images are not learned", hint
            )

    return images_can_be_learned


def _against(recipe: Recipe) -> Iterator[tuple[str, Any, str]]:
    train = recipe.train
    for name in ("packing", "neat_packing"):
        if train.args.get(name):
            yield f"train.args.{name}", train.args[name], "Set it to false."
    if train.too_long not in ("fail", "drop"):
        yield "train.too_long", train.too_long, "An image cannot be cut. Set it to fail or drop."
    if recipe.model.template is not None:
        yield "model.template", recipe.model.template, "Set it to null."
