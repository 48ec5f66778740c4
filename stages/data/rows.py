"""Rows of a dataset, one at a time: read, checked, and written as training and test rows. Memory stays flat."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from runner.errors import RunnerError
from runner.recipe.schema import Dataset
from stages.data.prompt import all_messages, text_columns

MOST_SHOWN = 20
PROMPTED_STAGES = ("sft", "ppo")
"""Training stages whose rows are made from `dataset.prompt`. The others' rows have columns of their own."""

# Columns of the rows of the other stages, as LLaMA-Factory's data README names them: (alpaca, sharegpt).
RAW_COLUMNS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "pt": ({"prompt": "text"}, {"prompt": "text"}),
    "kto": (
        {"prompt": "instruction", "query": "input", "response": "output", "kto_tag": "kto_tag"},
        {"messages": "conversations", "kto_tag": "kto_tag"},
    ),
    **dict.fromkeys(
        ("dpo", "rm"),
        (
            {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"},
            {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
        ),
    ),
}

Row = dict[str, Any]
OnRows = Callable[[int], None]


class BadRowError(Exception):
    """A row that cannot be used; the message says why."""


@dataclass
class SplitReport:
    """What became of a split. `problems`: the first bad rows, as (line, why). `source_sha256`: of all lines read."""

    num_rows: int = 0
    num_bad: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)
    source_sha256: str | None = None


class JsonLines:
    """Rows of a JSON Lines file: iterates (line number from 1, row), where a line that holds none is a BadRowError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest = hashlib.sha256()

    def __iter__(self) -> Iterator[tuple[int, Row | BadRowError]]:
        decode = json.JSONDecoder(parse_constant=_no_constant).decode
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                self._digest.update(line)
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                    if text:
                        row = decode(text)
                        yield number, row if isinstance(row, dict) else BadRowError("not a JSON object")
                except json.JSONDecodeError as error:
                    yield number, BadRowError(f"not JSON: {error.msg} at character {error.pos + 1}")
                except (ValueError, RecursionError) as error:
                    yield number, BadRowError(f"not JSON: {error}")

    @property
    def sha256(self) -> str:
        """Of the lines read so far."""
        return self._digest.hexdigest()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def write_split(
    source: Iterable[tuple[int, Row | BadRowError]],
    target: Path,
    convert: Callable[[Row, str], Row],
    split: str,
    limit: int | None,
    on_rows: OnRows,
) -> SplitReport:
    """Write each good row, converted, as a line of the target; count the bad ones. Stops after `limit` good rows.

    convert: takes a row and its id ("train-000012": split and zero-based index), raises BadRowError.
    """
    report = SplitReport()
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
    with target.open("wb") as file:
        for number, row in source:
            if report.num_rows == limit:
                break
            try:
                if isinstance(row, BadRowError):
                    raise row
                line = encode(convert(row, f"{split}-{report.num_rows:06d}")).encode() + b"\n"
            except (BadRowError, ValueError) as error:  # ValueError: half a surrogate pair, or an infinite number
                report.num_bad += 1
                if len(report.problems) < MOST_SHOWN:
                    report.problems.append((number, str(error)))
                continue
            file.write(line)
            report.num_rows += 1
            if report.num_rows % 1000 == 0:
                on_rows(report.num_rows)
    if isinstance(source, JsonLines):
        report.source_sha256 = source.sha256
    return report


def make_test_row(dataset: Dataset) -> Callable[[Row, str], Row]:
    """Converts a row to a test row: its own columns, and `id`. An `id` of its own is kept as `source_id`.

    Columns of the prompt's templates become text here and now, so that a number reads the same wherever the row is
    rendered.
    """
    columns = sorted(text_columns(dataset.prompt))

    def convert(row: Row, row_id: str) -> Row:
        _check_columns(row, columns)
        _messages(dataset, row)
        return _with_id(row | {column: str(row[column]) for column in columns}, row_id)

    return convert


def make_training_row(dataset: Dataset, stage: str) -> Callable[[Row, str], Row]:
    """Converts a row to what LLaMA-Factory reads, described by `stages.ingest.stage.dataset_info`.

    For the stages that learn an answer: id, and the prompt as `instruction`, `input` (empty), `output` and `system`,
    or as `messages`. For the others: the row as it is.
    """
    if stage not in PROMPTED_STAGES:
        return _make_raw_row(dataset.format, stage)
    columns = sorted(text_columns(dataset.prompt))

    def convert(row: Row, row_id: str) -> Row:
        _check_columns(row, columns)
        messages = _messages(dataset, row)
        if training_format(dataset) == "sharegpt":
            return {"id": row_id, "messages": messages}
        *system, user, assistant = (message["content"] for message in messages)
        made = {"id": row_id, "instruction": user, "input": "", "output": assistant}
        return made | {"system": system[0]} if system else made

    return convert


def training_format(dataset: Dataset) -> str:
    """The format that prompted training rows are written in: conversations do not fit into alpaca's columns."""
    return "sharegpt" if dataset.prompt.conversations is not None else dataset.format


def _make_raw_row(dataset_format: str, stage: str) -> Callable[[Row, str], Row]:
    columns = RAW_COLUMNS[stage][dataset_format == "sharegpt"]
    optional = columns.get("query")
    needed = [column for column in columns.values() if column != optional]

    def convert(row: Row, row_id: str) -> Row:
        for column in needed:
            if row.get(column) is None:
                raise BadRowError(f"lacks the column {column!r} that train.stage={stage} takes; it has: {_names(row)}")
        return _with_id({optional: ""} | row if optional else row, row_id)

    return convert


def _with_id(row: Row, row_id: str) -> Row:
    kept = {"source_id": row["id"]} | row if "id" in row else row
    return {"id": row_id} | kept | {"id": row_id}


def _check_columns(row: Row, columns: list[str]) -> None:
    for column in columns:
        value = row.get(column)
        if isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool)):
            continue
        if column not in row:
            raise BadRowError(f"lacks the column {column!r}; it has: {_names(row)}")
        raise BadRowError(f"column {column!r} is {type(value).__name__}, not text or a number")


def _messages(dataset: Dataset, row: Row) -> list[dict[str, str]]:
    try:
        messages = all_messages(dataset.prompt, row)
    except RunnerError as error:
        raise BadRowError(f"{error.message}. {error.hint}") from error
    for message in messages:
        if not message["content"].strip():
            raise BadRowError(f"its {message['role']} message is empty")
    return messages


def _names(row: Row) -> str:
    return ", ".join(list(row)[:20]) or "none"
