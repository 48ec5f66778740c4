"""The batches that axolotl's own trainer learns from, in its environment: the rows' tokens, padded and nothing else."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from stages.data.example import write_examples
from stages.models.chat_template import ChatTemplate
from stages.models.learned import NO_LOSS
from stages.samples.dataset import write_tokens
from stages.sections.recipe import Recipe
from stages.trainers.axolotl.tokens import encoder_of
from stages.trainers.axolotl.trainer import Axolotl
from stages.trainers.axolotl.worker import train_by_axolotl
from tests.stages.train import cases
from tests.tiny_model import write_tiny_model

pytestmark = [
    pytest.mark.environment("axolotl"), pytest.mark.e2e, pytest.mark.chaos, pytest.mark.filterwarnings("default"),
]  # fmt: skip


def batches_of(recipe: Recipe, folder: Path) -> tuple[list[Any], list[Any]]:
    """(rows as tokens and labels, the same of every row that the model is given over one epoch, without padding)."""
    from datasets import load_from_disk
    from transformers import TrainerCallback

    seen: list[Any] = []

    class Look(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any, **kwargs: Any) -> None:
            for batch in train_dataloader:
                assert batch.keys() == {"input_ids", "labels", "attention_mask"}
                parts = (batch[name].tolist() for name in ("input_ids", "labels", "attention_mask"))
                seen.extend(unpadded(*row) for row in zip(*parts, strict=True))

    train_by_axolotl(arguments(recipe, folder), None, Look())
    rows = load_from_disk(str(folder / "tokens"))["train"]
    return [(row["input_ids"], row["labels"]) for row in rows], seen


def arguments(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """What the trainer is told, of a tiny model and rows that it tokenizes into the folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_tiny_model(folder / "model")
    (folder / "rows").mkdir()
    write_examples(folder / "rows" / "train.jsonl", map(cases.example, range(1, 12)))
    write_tokens(recipe, ChatTemplate.of(recipe, str(folder / "model")), folder / "rows", folder / "tokens", encoder_of)
    where = {name: str(folder / place) for name, place in (("model", "model"), ("dataset_dir", "rows"))}
    made = Axolotl().arguments(recipe, **where, output_dir=str(folder / "out"), tokens=str(folder / "tokens"))
    return json.loads(json.dumps(made))


def unpadded(ids: list[int], labels: list[int], mask: list[int]) -> tuple[list[int], list[int]]:
    kept = [index for index, seen in enumerate(mask) if seen]
    assert all(labels[index] == NO_LOSS for index in range(len(ids)) if index not in set(kept))
    return [ids[index] for index in kept], [labels[index] for index in kept]


@pytest.mark.parametrize("args", [{}, {"train_on_inputs": True}, {"group_by_length": True}, {"pad_to_multiple_of": 64}])
def test_the_model_is_given_each_rows_own_tokens_once_an_epoch(
    args: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = cases.recipe_of(max_steps=1, **args)
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"trainer": "axolotl"})})
    for name, value in Axolotl().worker_env(recipe.resources_of("train")).items():
        monkeypatch.setenv(name, value)
    rows, seen = batches_of(recipe, tmp_path)
    assert len(rows) == 11
    assert sorted(seen) == sorted(rows)
