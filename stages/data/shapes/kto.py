"""KTO's label: whether an answer is a good one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.data.example import BadRowError
from stages.data.prompt import cell, has, names, only_column

LABELS = ("kto_tag", "label")
_GOOD = ("true", "1", "1.0", "yes", "y", "t", "good", "desirable")
_BAD = ("false", "0", "0.0", "no", "n", "f", "bad", "undesirable")
_TEXTS = dict.fromkeys(_GOOD, True) | dict.fromkeys(_BAD, False)
_FIX = "Write true for a good answer, false for a bad one."


def label_of(template: str | None, row: Mapping[str, Any], required: bool) -> bool | None:
    """The row's label: a boolean, 0 or 1, or either as text. Raises BadRowError for anything else."""
    column = (only_column(template) or template) if template else next((name for name in LABELS if name in row), None)
    value = None if column is None else cell(row, column)
    if value is None and not required:
        return None
    if value is None and column is not None and has(row, column):
        raise BadRowError(f"column {column!r} is null: a label of KTO is true or false, 1 or 0", _FIX)
    if value is None:
        wanted = column or LABELS[0]
        raise BadRowError(
            f"lacks the column {wanted!r} that train.stage=kto needs; it has: {names(row)}",
            "Name the column in dataset.prompt.label, in braces.",
        )
    if isinstance(value, str) and value.strip().lower() in _TEXTS:
        return _TEXTS[value.strip().lower()]
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    raise BadRowError(f"column {column!r} is {value!r}: a label of KTO is true or false, 1 or 0", _FIX)
