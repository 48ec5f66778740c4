"""Examples as LLaMA-Factory reads them: rows in its alpaca or sharegpt format, and its `dataset_info.json`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from runner.recipe.schema import Recipe
from runner.storage.atomic import write_json
from stages.data.example import Example, Message, one_line, read_examples, text_of

SPLITS = ("train", "val")
_PAIRS = ("dpo", "rm")
_ROLE_TAGS = {
    "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
    "system_tag": "system",
}  # fmt: skip
_COLUMNS: dict[tuple[str, str], dict[str, str]] = {
    ("pt", "alpaca"): {"prompt": "text"},
    ("kto", "alpaca"): {"prompt": "instruction", "query": "input", "response": "output", "kto_tag": "kto_tag"},
    ("kto", "sharegpt"): {"messages": "messages", "kto_tag": "kto_tag"},
    ("pair", "alpaca"): {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"},
    ("pair", "sharegpt"): {"messages": "messages", "chosen": "chosen", "rejected": "rejected"},
    ("prompted", "alpaca"): {"prompt": "instruction", "query": "input", "response": "output"},
    ("prompted", "sharegpt"): {"messages": "messages"},
}


def write_dataset(recipe: Recipe, train_set: Path, folder: Path) -> Path:
    """Write the examples of a `train_set` of ingest into the folder, which LLaMA-Factory calls its dataset_dir."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = [split for split in SPLITS if (train_set / f"{split}.jsonl").is_file()]
    for split in splits:
        rows = training_rows(recipe, read_examples(train_set / f"{split}.jsonl"))
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{one_line(row)}\n" for row in rows)
    write_json(folder / "dataset_info.json", dataset_info(recipe, splits))
    return folder


def dataset_info(recipe: Recipe, splits: list[str]) -> dict[str, Any]:
    """LLaMA-Factory's `dataset_info.json`: what the columns of the splits' rows mean to it."""
    kind, formatting = _kind(recipe), _formatting(recipe)
    info: dict[str, Any] = {"formatting": formatting, "columns": dict(_COLUMNS[kind, formatting])}
    if kind == "pair":
        info["ranking"] = True
    if formatting == "sharegpt":
        info["tags"] = _ROLE_TAGS
    elif kind != "pt" and recipe.dataset.prompt.system is not None:
        info["columns"]["system"] = "system"
    return {split: {"file_name": f"{split}.jsonl", **info} for split in splits}


def _kind(recipe: Recipe) -> str:
    stage = recipe.train.stage
    return "pair" if stage in _PAIRS else stage if stage in ("pt", "kto") else "prompted"


def _formatting(recipe: Recipe) -> str:
    """Conversations do not fit into alpaca's columns, and templates may name a column of messages."""
    if recipe.train.stage == "pt":
        return "alpaca"
    return "sharegpt" if recipe.dataset.prompt.user is None else recipe.dataset.format


def training_rows(recipe: Recipe, examples: Iterator[Example]) -> Iterator[dict[str, Any]]:
    """The rows of LLaMA-Factory's format. Raises RunnerError for an example that does not fit into it."""
    make = _rows_of[_kind(recipe), _formatting(recipe)]
    for example in examples:
        yield {"id": example.id, **make(example)}


def _single(example: Example) -> tuple[str, list[Message]]:
    """The user's text and the system messages of a conversation of one question."""
    *system, user = example.prompt
    if user["role"] != "user" or any(each["role"] != "system" for each in system):
        raise RunnerError(
            f"{example.id} ({example.source}) is a conversation of several turns, which LLaMA-Factory's alpaca format "
            "cannot hold",
            "Set dataset.format=sharegpt.",
        )
    return text_of(user), system


def _system(messages: list[Message]) -> dict[str, str]:
    return {"system": text_of(messages[0])} if messages else {}


def _alpaca(example: Example) -> dict[str, Any]:
    user, system = _single(example)
    return {"instruction": user, "input": "", "output": example.reference, **_system(system)}


def _alpaca_pair(example: Example) -> dict[str, Any]:
    user, system = _single(example)
    assert example.chosen is not None, "ingest makes pairs for these stages"
    assert example.rejected is not None, "ingest makes pairs for these stages"
    answers = {"chosen": text_of(example.chosen[0]), "rejected": text_of(example.rejected[0])}
    return {"instruction": user, "input": "", **answers, **_system(system)}


def _plain(messages: list[Message]) -> list[dict[str, str]]:
    return [{"role": each["role"], "content": text_of(each)} for each in messages]


def _sharegpt_pair(example: Example) -> dict[str, Any]:
    chosen, rejected = _plain(example.chosen or []), _plain(example.rejected or [])
    return {"messages": _plain(example.messages), "chosen": chosen[0], "rejected": rejected[0]}


_rows_of: dict[tuple[str, str], Callable[[Example], dict[str, Any]]] = {
    ("pt", "alpaca"): lambda example: {"text": example.text},
    ("kto", "alpaca"): lambda example: _alpaca(example) | {"kto_tag": example.label},
    ("kto", "sharegpt"): lambda example: {"messages": _plain(example.messages), "kto_tag": example.label},
    ("pair", "alpaca"): _alpaca_pair,
    ("pair", "sharegpt"): _sharegpt_pair,
    ("prompted", "alpaca"): _alpaca,
    ("prompted", "sharegpt"): lambda example: {"messages": _plain(example.messages)},
}
