"""Arrow files and streams (Feather version 2, the `datasets` library's own), and the rows of Arrow's batches."""

from __future__ import annotations

import datetime
import decimal
import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from runner.errors import RunnerError, first_line
from runner.text import count_text
from stages.data.example import BadRowError
from stages.data.readers import Numbered, OnBytes, Row
from stages.data.readers.filled import TOOLS, may_be_filled, unfilled
from stages.data.readers.json_values import Number
from stages.data.readers.opened import unpacked_file
from stages.data.readers.sniff import Form

BATCH_ROWS = 2048
Make = Callable[[Any], Any]


def read(path: Path, name: str, form: Form, split: str, on_bytes: OnBytes) -> Numbered:
    """The rows, numbered from 1. Raises RunnerError when the file is cut off."""
    import pyarrow as pa

    with unpacked_file(path, name, form) as whole:
        try:
            with pa.memory_map(str(whole)) as file:
                yield from zip(count(1), rows_of(_batches(file), name), strict=False)
        except pa.ArrowInvalid as error:
            raise RunnerError(f"{name} is cut off or corrupt: {error}", "Get the file again.") from error


def _batches(file: Any) -> Iterator[Any]:
    import pyarrow as pa

    try:
        reader = pa.ipc.open_file(file)
    except pa.ArrowInvalid:
        file.seek(0)
        for batch in pa.ipc.open_stream(file):
            yield from _small(batch)
        return
    for index in range(reader.num_record_batches):
        yield from _small(reader.get_batch(index))


def _small(batch: Any) -> Iterator[Any]:
    for start in range(0, batch.num_rows, BATCH_ROWS):
        yield batch.slice(start, BATCH_ROWS)


def rows_of(batches: Iterator[Any], name: str) -> Iterator[Row]:
    """The rows of record batches, in values that JSON has: dates as text, labels of a ClassLabel by their names, NaN as
    null. name: of the file. Raises RunnerError when two columns have one name."""
    for batch in batches:
        names = batch.schema.names
        if len(set(names)) < len(names):
            twice = next(each for each in names if names.count(each) > 1)
            raise RunnerError(f"{name} has the column {twice!r} twice", "Give each column its own name.")
        labels = class_labels(batch.schema.metadata or {})
        columns = [_values(each, column, labels.get(each)) for each, column in zip(names, batch.columns, strict=True)]
        for values in zip(*columns, strict=True):
            yield dict(zip(names, values, strict=True))


Labels = tuple[str, ...] | dict[str, Any]
"""Names of a ClassLabel's classes, or those of an object's parts. Lists have their elements'."""


def class_labels(metadata: dict[bytes, bytes]) -> dict[str, Labels]:
    """What the `datasets` library wrote of each column that holds a ClassLabel."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    found = labels_of(features)
    return found if isinstance(found, dict) else {}


def labels_of(feature: Any) -> Labels | None:
    """The labels of a feature of the `datasets` library, in its JSON form; None where it has none."""
    if isinstance(feature, list):
        return labels_of(feature[0]) if len(feature) == 1 else None
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") == "ClassLabel":
        return tuple(feature.get("names") or ()) or None
    if isinstance(feature.get("_type"), str):
        return labels_of(feature.get("feature"))
    return {name: labels for name, each in feature.items() if (labels := labels_of(each))} or None


def by_name(value: Any, labels: Labels) -> Any:
    """The value with numbers of classes as their names; -1, a row without a label, as null.

    Raises RunnerError for a number that is none of a class.
    """
    if isinstance(value, list):
        return [by_name(each, labels) for each in value]
    if isinstance(labels, dict):
        return {k: by_name(v, labels[k]) if k in labels else v for k, v in value.items()} if value else value
    if not isinstance(value, int):
        return value
    if not -1 <= value < len(labels):
        shown = ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")
        hint = "Correct the rows, or write the file with the names of all classes."
        raise RunnerError(
            f"a class label is {value}, and the file names {count_text(len(labels), 'class')}: {shown}", hint
        )
    return labels[value] if value >= 0 else None


def _values(name: str, column: Any, labels: Labels | None) -> list[Any]:
    make = _plain_of(column.type)
    try:
        values: list[Any] = column.to_pylist() if make is None else column.to_pylist(maps_as_pydicts="strict")
    except (OverflowError, ValueError, KeyError):
        values, make = list(_one_by_one(column, make)), None
    if make is not None:
        values = [make(value) for value in values]
    if may_be_filled(name, column.type):
        values = [unfilled(value, name in TOOLS) for value in values]
    return values if labels is None else [by_name(value, labels) for value in values]


def _one_by_one(column: Any, make: Make | None) -> Iterator[Any]:
    """The values of a column; of one that Python cannot have, the error for the row that uses it."""
    for each in column:
        try:
            value = each.as_py(maps_as_pydicts="strict")
        except (OverflowError, ValueError, KeyError) as error:
            yield BadRowError(_why(error), "Correct the value, or do not use the column.")
        else:
            yield value if make is None else make(value)


def _why(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8"
    if isinstance(error, OverflowError):
        return "is a time beyond the year 9999, or before the year 1"
    return "has a key twice" if "duplicate key" in str(error) else f"cannot be read: {first_line(error)}"


def _plain_of(kind: Any) -> Make | None:
    """What makes the type's values JSON's; None where they are already."""
    import pyarrow.types as types

    if types.is_float32(kind) or types.is_float16(kind):
        return partial(_short, "float32" if types.is_float32(kind) else "float16")
    if types.is_float64(kind):
        return _number
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        each = _plain_of(kind.value_type)
        return None if each is None else partial(_list_of, each)
    if types.is_struct(kind):
        made = {field.name: each for field in kind if (each := _plain_of(field.type)) is not None}
        return partial(_object_of, made) if made else None
    if types.is_dictionary(kind):
        return _plain_of(kind.value_type)
    same = (types.is_string, types.is_large_string, types.is_string_view, types.is_integer)
    return None if any(each(kind) for each in (*same, types.is_boolean, types.is_null)) else plain


def _list_of(make: Make, value: list[Any] | None) -> list[Any] | None:
    return None if value is None else [make(each) for each in value]


def _object_of(makes: dict[str, Make], value: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if value is None else {key: makes[key](v) if key in makes else v for key, v in value.items()}


def _number(value: float | None) -> float | None:
    return None if value is None or value != value else value


def _short(width: str, value: float | None) -> float | None:
    """A number of 32 or 16 bits by its own digits: 0.1, not 0.10000000149."""
    import numpy as np

    return None if value is None or value != value else float(str(np.dtype(width).type(value)))


def plain(value: Any) -> Any:
    """The value with dates, times and decimals as they are written and NaN as null, also inside lists and objects."""
    if isinstance(value, float):
        return None if value != value else value
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(plain(key)): plain(each) for key, each in value.items()}
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return Number(f"{value:f}")
    return str(value) if isinstance(value, datetime.timedelta) else value
