"""A column that names each row's split: which split a value means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.errors import nearest
from stages.data.example import BadRowError
from stages.data.prompt import as_text, cell, has, names
from stages.sections.dataset import HeldOut

SPLIT_WORDS: dict[str, tuple[str, ...]] = {
    "test": ("test", "testing", "heldout"),
    "val": ("val", "valid", "validation", "dev", "eval"),
    "train": ("train", "training"),
}
"""Usual names of the splits, in lower case."""
NONE = "none"


def split_of_row(rule: HeldOut, row: Mapping[str, Any]) -> str:
    """`train`, `val` or `test`, or `none` for a row that is left out. Raises BadRowError where the row names none."""
    column = rule.column or ""
    value = cell(row, column)
    if value is None:
        lacks = "is null" if has(row, column) else f"is missing; there are: {names(row)}"
        raise BadRowError(f"its column {column!r}, which dataset.split names, {lacks}", "Name each row's split in it.")
    text = as_text(value)
    found = rule.values.get(text) or split_named(text)
    if found is None:
        near = nearest(text.strip().lower(), [word for words in SPLIT_WORDS.values() for word in words])
        means = split_named(near or "") or "val"
        raise BadRowError(
            f"its column {column!r} is {text!r}, which names no split",
            f"Set dataset.split.values={{{text}: {means}}}, or none instead of {means} to leave such rows out.",
        )
    return found


def split_named(text: str) -> str | None:
    """The split that the text is a usual name of."""
    word = text.strip().lower()
    return next((split for split, known in SPLIT_WORDS.items() if word in known), None)
