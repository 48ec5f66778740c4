"""JSON as it was written: numbers keep their digits, a key given twice and a number out of range are refused.

NaN, which Python writes for a value that is missing, is null.
"""

from __future__ import annotations

import json
from typing import Any


class Number(float):
    """A number that is not written as Python would write it: 4.50, 1E5. Its text is what the file has."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Number:
        made = super().__new__(cls, text)
        made.text = text
        return made

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[Any, ...]:
        return (Number, (self.text,))


def _number(text: str) -> float:
    value = float(text)
    if value - value != 0:
        raise ValueError(f"{text} is out of the range of numbers")
    return value if repr(value) == text else Number(text)


def _constant(name: str) -> float | None:
    return None if name == "NaN" else float(name)


def explained(error: json.JSONDecodeError) -> str:
    """Why a text is not JSON, in words for the person who has the file."""
    if error.msg.startswith("Invalid control character"):
        return "a line break, tab or other control character in a text, which JSON writes as \\n, \\t"
    last = error.doc[: error.pos].rstrip()[-1:]
    after = error.doc[error.pos : error.pos + 1]
    return f"a comma before {after!r}" if last == "," and after and after in "]}" else error.msg.removesuffix(" at")


def why_not(error: Exception) -> str:
    """Why a value cannot be read, in words for the person who has the file."""
    if isinstance(error, RecursionError):
        return "it is nested deeper than can be read"
    return "a number has more than 4,300 digits" if "integer string conversion" in str(error) else str(error)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} is given twice, and which was meant cannot be known")
    return made


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_number, parse_constant=_constant)


NOT_JSON = "not JSON"


def value_of(text: str) -> Any:
    """The value of JSON text in a cell. Raises ValueError with why it is none."""
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError:
        raise ValueError(NOT_JSON) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{NOT_JSON}: {why_not(error)}") from None
