"""The training set as LLaMA-Factory's tokenized datasets, so that it learns what the chat template renders.

LLaMA-Factory reads such a folder by `tokenized_path` and renders nothing itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.models.chat_template import ChatTemplate
from stages.samples import dataset
from stages.samples.encoder import Encoder, Rules
from stages.trainers.llamafactory.named_template import NamedTemplate

if TYPE_CHECKING:
    from stages.data.example import Example
    from stages.sections.recipe import Recipe

DEFAULT_CUTOFF = 2048


class SeeingEncoder(Encoder):
    """Adds the images of rows, which LLaMA-Factory's collator makes the model's inputs of."""

    takes_images = True

    def check_images(self, example: Example) -> None:
        from stages.trainers.llamafactory.images import compare

        compare(self.template, example.images or [])


def tokenize(recipe: Recipe, model: str, train_set: str, target: str) -> dict[str, Any]:
    """`stages.samples.dataset.tokenize` as a task of its own."""
    return dataset.tokenize(recipe, model, train_set, target, encoder_of)


def encoder_of(recipe: Recipe, template: ChatTemplate) -> Encoder:
    """The recipe's encoder; with one of LLaMA-Factory's templates where `model.template` names it."""
    rules, named = rules_of(recipe), None
    if recipe.model.template is not None:
        named = NamedTemplate(
            recipe.model.template,
            template.tokenizer.name_or_path,
            last_only=rules.last_only or rules.method not in ("sft", "pt"),
            on_prompt=rules.on_prompt,
            trust_remote_code=recipe.model.trust_remote_code,
        )
    return SeeingEncoder(template, rules, named)


def rules_of(recipe: Recipe) -> Rules:
    """How rows are learned, by the recipe's keys and LLaMA-Factory's arguments."""
    args, train = recipe.train.args, recipe.train
    neat = bool(args.get("neat_packing"))
    packing = args.get("packing")
    return Rules(
        method=train.stage,
        limit=int(args.get("cutoff_len") or DEFAULT_CUTOFF),
        too_long=train.too_long,
        reasoning=train.reasoning,
        last_only=bool(args.get("mask_history")),
        on_prompt=bool(args.get("train_on_prompt")),
        packing=(train.stage == "pt" if packing is None else bool(packing)) or neat,
        neat_packing=neat,
    )
