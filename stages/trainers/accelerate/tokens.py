"""The training set as TRL's trainers read it: token ids, and which of them are learned.

The rows are encoded by the model's chat template, as for every trainer; TRL renders and tokenizes nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stages.models.chat_template import ChatTemplate
from stages.models.endpoint_form import RefusedRowError
from stages.models.learned import NO_LOSS, Sample
from stages.samples import dataset
from stages.samples.encoder import Columns, Encoder, Rules
from stages.trainers.accelerate.values import argument, length_name

if TYPE_CHECKING:
    from stages.data.example import Example
    from stages.sections.recipe import Recipe


class TrlEncoder(Encoder):
    """Turns examples into the columns that TRL's collators read."""

    def pair(self, example: Example) -> tuple[Sample, Sample]:
        """(chosen, rejected), whose prompts TRL wants to be one. Raises RefusedRowError."""
        chosen, rejected = super().pair(example)
        if chosen.ids[: chosen.answer_at] != rejected.ids[: rejected.answer_at]:
            raise RefusedRowError(
                "the chat template renders its prompt otherwise before one answer than before the other",
                "Set model.chat_template_kwargs or model.chat_template, or train.trainer=llamafactory.",
            )
        return chosen, rejected

    def pair_columns(self, chosen: Sample, rejected: Sample) -> Columns:
        (prompt, good), (_, bad) = _parts(chosen), _parts(rejected)
        return {"prompt_ids": prompt, "chosen_ids": good, "rejected_ids": bad}

    def judged_columns(self, rows: list[tuple[Sample, bool]]) -> Iterator[Columns]:
        for sample, label in rows:
            prompt, answer = _parts(sample)
            yield {"prompt_ids": prompt, "completion_ids": answer, "label": label}


def _parts(sample: Sample) -> tuple[list[int], list[int]]:
    """The prompt, of which nothing is learned, and the answer, of which everything is."""
    at = sample.answer_at
    assert all(label == NO_LOSS for label in sample.labels[:at]), "a part of a prompt is learned"
    assert sample.labels[at:] == sample.ids[at:], "a part of an answer is not learned"
    return sample.ids[:at], sample.ids[at:]


def tokenize(recipe: Recipe, model: str, train_set: str, target: str) -> dict[str, Any]:
    """`stages.samples.dataset.tokenize` as a task of its own."""
    return dataset.tokenize(recipe, model, train_set, target, encoder_of)


def encoder_of(recipe: Recipe, template: ChatTemplate) -> Encoder:
    """The recipe's encoder."""
    return TrlEncoder(template, rules_of(recipe))


def rules_of(recipe: Recipe) -> Rules:
    """How rows are learned. Texts for pretraining fill whole blocks; other rows TRL packs by itself."""
    train = recipe.train
    packing = train.args.get("packing")
    return Rules(
        method=train.stage,
        limit=int(argument(recipe, "max_length")),
        too_long=train.too_long,
        reasoning=train.reasoning,
        last_only=bool(train.args.get("mask_history")),
        on_prompt=bool(train.args.get("train_on_prompt")),
        packing=train.stage == "pt" and (packing is None or bool(packing)),
        neat_packing=False,
        limit_name=length_name(recipe),
    )
