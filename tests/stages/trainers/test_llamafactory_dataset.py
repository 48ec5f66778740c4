from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from runner.errors import RunnerError
from runner.recipe.schema import Recipe
from runner.testing import assert_golden, load_recipe
from stages.data.example import Example, Message, write_examples
from stages.trainers.llamafactory.dataset import dataset_info, write_dataset
from tests.paths import GOLDEN

USER: Message = {"role": "user", "content": "Open?\u2028"}
SAYS: Message = {"role": "assistant", "content": "At eight."}
NO: Message = {"role": "assistant", "content": "No idea."}
SYSTEM: Message = {"role": "system", "content": "Be brief."}

INFO_CASES: dict[str, dict[str, Any]] = {
    "alpaca": {},
    "alpaca_system": {"dataset.prompt.system": "You know games."},
    "sharegpt": {"dataset.format": "sharegpt"},
    "pt": {"train.stage": "pt"},
    "dpo": {"train.stage": "dpo"},
    "rm_sharegpt": {"train.stage": "rm", "dataset.format": "sharegpt"},
    "kto": {"train.stage": "kto"},
    "kto_sharegpt": {"train.stage": "kto", "dataset.format": "sharegpt"},
    "ppo": {"train.stage": "ppo"},
}


def recipe_of(**changes: Any) -> Recipe:
    """The quickstart with changes by dotted key, whatever its rules say of them."""
    values = json.loads(_quickstart())
    for key, value in changes.items():
        *sections, last = key.split(".")
        where = values
        for section in sections:
            where = where[section]
        where[last] = value
    return Recipe.model_validate(values)


@cache
def _quickstart() -> str:
    return load_recipe("viggo_quickstart").model_dump_json()


def rows_of(tmp_path: Path, recipe: Recipe, *examples: Example) -> list[dict[str, Any]]:
    (tmp_path / "set").mkdir()
    write_examples(tmp_path / "set" / "train.jsonl", examples)
    folder = write_dataset(recipe, tmp_path / "set", tmp_path / "dataset")
    info = json.loads((folder / "dataset_info.json").read_text())
    assert info == dataset_info(recipe, ["train"])
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def test_dataset_info_is_what_it_was() -> None:
    made = {name: dataset_info(recipe_of(**changes), ["train", "val"]) for name, changes in INFO_CASES.items()}
    assert_golden(made, GOLDEN / "dataset_info.json")


CASES: list[tuple[dict[str, Any], Example, dict[str, Any]]] = [
    ({}, Example("a", [SYSTEM, USER, SAYS]),
     {"instruction": "Open?\u2028", "input": "", "output": "At eight.", "system": "Be brief."}),
    ({"dataset.format": "sharegpt"}, Example("a", [SYSTEM, USER, SAYS]), {"messages": [SYSTEM, USER, SAYS]}),
    ({"train.stage": "dpo"}, Example("a", [SYSTEM, USER], chosen=[SAYS], rejected=[NO]),
     {"instruction": "Open?\u2028", "input": "", "chosen": "At eight.", "rejected": "No idea.", "system": "Be brief."}),
    ({"train.stage": "dpo", "dataset.format": "sharegpt"}, Example("a", [USER], chosen=[SAYS], rejected=[NO]),
     {"messages": [USER], "chosen": SAYS, "rejected": NO}),
    ({"train.stage": "kto"}, Example("a", [USER, SAYS], label=False),
     {"instruction": "Open?\u2028", "input": "", "output": "At eight.", "kto_tag": False}),
    ({"train.stage": "pt"}, Example("a", text="Once."), {"text": "Once."}),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "example", "row"), CASES)
def test_examples_are_written_in_the_trainers_format(
    tmp_path: Path, changes: dict[str, Any], example: Example, row: dict[str, Any]
) -> None:
    assert rows_of(tmp_path, recipe_of(**changes), example) == [{"id": "a", **row}]


def test_a_conversation_does_not_fit_into_alpaca(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="several turns"):
        rows_of(tmp_path, recipe_of(), Example("a", [USER, SAYS, USER, SAYS]))
