"""The training set as axolotl's trainer reads it: token ids, and which of them are learned.

The rows are encoded by the model's chat template, as for every trainer; axolotl renders and tokenizes nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from stages.models.chat_template import ChatTemplate
from stages.samples import dataset
from stages.samples.encoder import Columns, Encoder, Rules
from stages.trainers.axolotl.values import argument, name_in

if TYPE_CHECKING:
    from stages.data.example import Example
    from stages.sections.recipe import Recipe


class AxolotlEncoder(Encoder):
    """Turns examples into the columns that axolotl's collator reads."""

    def columns(self, examples: Iterable[Example]) -> Iterator[Columns]:
        """Rows in order. Of texts for pretraining every token is learned, which axolotl wants to be told."""
        for row in super().columns(examples):
            yield row if "labels" in row else {**row, "labels": row["input_ids"]}


def tokenize(recipe: Recipe, model: str, train_set: str, target: str) -> dict[str, Any]:
    """`stages.samples.dataset.tokenize` as a task of its own."""
    return dataset.tokenize(recipe, model, train_set, target, encoder_of)


def encoder_of(recipe: Recipe, template: ChatTemplate) -> Encoder:
    """The recipe's encoder."""
    return AxolotlEncoder(template, rules_of(recipe))


def rules_of(recipe: Recipe) -> Rules:
    """How rows are learned. Texts for pretraining fill whole blocks; other rows are not packed."""
    train = recipe.train
    return Rules(
        method=train.stage,
        limit=int(argument(recipe, "sequence_len")),
        too_long=train.too_long,
        reasoning=train.reasoning,
        last_only=bool(argument(recipe, "mask_history")),
        on_prompt=bool(argument(recipe, "train_on_inputs")),
        packing=train.stage == "pt",
        neat_packing=False,
        limit_name=name_in(recipe, "sequence_len"),
    )
