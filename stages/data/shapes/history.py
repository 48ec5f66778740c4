"""Alpaca's `history`: a column of earlier turns, each a pair of what the user asked and what was answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.data.example import BadRowError, Message
from stages.data.messages import kind
from stages.data.prompt import as_text, cell, has, names, only_column, optional_column
from stages.data.readers.json_values import value_of
from stages.data.shapes.conversation import holds_messages, messages_of
from stages.sections.dataset import Dataset

_FIX = 'Write it as [["first question", "first answer"], ...], the oldest first.'


def history_of(dataset: Dataset, row: Mapping[str, Any]) -> list[Message]:
    """The earlier turns of the row, none where the recipe names no column of them. Raises BadRowError."""
    template = dataset.prompt.history
    if template is None:
        return []
    column = only_column(template) or template
    if not has(row, column) and not optional_column(template):
        fix = f"Write dataset.prompt.history='{{{column}|}}' where rows without earlier turns lack it."
        raise BadRowError(f"lacks the column {column!r}; it has: {names(row)}", fix)
    pairs = _parsed(cell(row, column), column)
    if holds_messages(pairs):
        return messages_of(dataset, row, column)
    return [message for number, pair in enumerate(pairs, 1) for message in _turns(pair, number, column)]


def _parsed(value: Any, column: str) -> list[Any]:
    """The list, which tables have as JSON text."""
    if value is None or value == "":
        return []
    if isinstance(value, str):
        try:
            value = value_of(value)
        except ValueError:
            raise BadRowError(f"column {column!r} is text, not a list of earlier turns", _FIX) from None
    if not isinstance(value, list):
        raise BadRowError(f"column {column!r} is {kind(value)}, not a list of earlier turns", _FIX)
    return value


def _turns(pair: Any, number: int, column: str) -> list[Message]:
    where = f"turn {number} of column {column!r}"
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        many = f" of {len(pair)}" if isinstance(pair, list | tuple) else ""
        raise BadRowError(f"{where} is {kind(pair)}{many}, not a question and its answer", _FIX)
    try:
        asked, answered = (as_text(each) for each in pair)
    except BadRowError as error:
        raise BadRowError(f"{where} has a text that {error.why}", _FIX) from None
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
