"""JSON that is not Lines: an array of objects, objects one after the other, or an object with the list under a key.

Arrays are read piece by piece; an object as a whole, up to a limit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from runner.errors import RunnerError
from stages.data.example import BadRowError
from stages.data.messages import kind
from stages.data.readers import Numbered, OnBytes, Row
from stages.data.readers.json_values import DECODER, explained
from stages.data.readers.jsonl import how_to_write
from stages.data.readers.opened import MOST_ROW_CHARS, open_text, text_flaw
from stages.data.readers.sniff import Form
from stages.data.split_column import SPLIT_WORDS, split_named

_PIECE_CHARS = 1 << 20
_SPACE = re.compile(r"[ \t\r\n]*")
_AROUND = 'Write {"messages": [...]} around each conversation, one a line.'
_HINT = "Write one JSON object a line (pandas: to_json(orient='records', lines=True))."


def read(path: Path, name: str, form: Form, split: str, on_bytes: OnBytes) -> Numbered:
    """The rows, numbered from 1. Raises RunnerError when the file is not JSON, or has no clear place of rows."""
    with open_text(path, name, form, on_bytes) as file:
        for number, value in enumerate(_rows(_Stream(file, name), split), 1):
            yield number, _row(value)


def _row(value: Any) -> Row | BadRowError:
    if isinstance(value, dict):
        return value
    is_talk = isinstance(value, list) and value and _is_message(value[0])
    hint = _AROUND if is_talk else how_to_write(value) if isinstance(value, str | None) else _HINT
    return BadRowError(f"not a JSON object but {kind(value)}", hint)


def _rows(stream: _Stream, split: str) -> Iterator[Any]:
    if stream.peek() == "[":
        for number, value in enumerate(stream.elements()):
            if not number and _is_message(value):
                raise RunnerError(f"{stream.name} is an array of messages, not of rows", _AROUND)
            yield value
        if stream.peek():
            raise stream.broken("has more after the end of its array")
        return
    first = stream.value()
    if not stream.peek():
        yield from _rows_of_object(first, stream.name, split)
        return
    yield first
    while stream.peek():
        yield stream.value()


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and (value.keys() >= {"role", "content"} or value.keys() >= {"from", "value"})


def _rows_of_object(value: Any, name: str, split: str) -> list[Any]:
    """The rows of a file that is one object: the list under the split's name or another key, or the object itself."""
    if not isinstance(value, dict):
        raise RunnerError(f"{name} holds {kind(value)}, not rows", _HINT)
    meant = [each for key, each in value.items() if split_named(key) == split and isinstance(each, list)]
    if len(meant) == 1 and (not meant[0] or isinstance(meant[0][0], dict)):
        return list(meant[0])
    lists = {key: each for key, each in value.items() if isinstance(each, list) and each and isinstance(each[0], dict)}
    if not lists or any({"role", "from"} & set(each[0]) for each in lists.values()):
        if (inner := _inner(value)) is not None:
            return _rows_of_object(inner, name, split)
        if len(value) > 1 and _holds_columns(value):
            raise RunnerError(f"{name} holds columns or named objects, not a list of rows", _HINT)
        return [value]
    if len(lists) > 1:
        raise RunnerError(f"{name} holds several lists of objects: {', '.join(lists)}", _several(split))
    return next(iter(lists.values()))


def splits_in(path: Path, name: str, form: Form) -> set[str]:
    """The splits whose rows the file has, each under the split's name. Raises RunnerError when it is not JSON."""
    with open_text(path, name, form, lambda done: None) as file:
        stream = _Stream(file, name)
        value = stream.value() if stream.peek() == "{" else {}
        value = {} if stream.peek() else _inner(value) or value
    return {split for key, each in value.items() if isinstance(each, list) and (split := split_named(key))}


def _inner(value: dict[str, Any]) -> dict[str, Any] | None:
    """The one object of an object that has the splits' lists: {"data": {"train": [...]}}."""
    inside = [each for each in value.values() if isinstance(each, dict)]
    found = inside[0] if len(inside) == 1 else {}
    return found if any(split_named(key) and isinstance(each, list) for key, each in found.items()) else None


def _several(split: str) -> str:
    words = ", ".join(SPLIT_WORDS[split]) if split in SPLIT_WORDS else split
    return f"Write the {split} rows to a file of their own, or call one of the lists {words}."


def _holds_columns(value: dict[str, Any]) -> bool:
    """Whether the object is a table by columns: objects, lists of one length, or what pandas calls `split`."""
    lists = [len(each) for each in value.values() if isinstance(each, list)]
    by_column = len(lists) == len(value) and len(set(lists)) == 1
    return by_column or value.keys() >= {"columns", "data"} or all(isinstance(each, dict) for each in value.values())


class _Stream:
    """JSON values out of a text, of which no more than a value is held."""

    def __init__(self, file: IO[str], name: str) -> None:
        self.name = name
        self._file, self._text, self._at, self._ended = file, "", 0, False
        self._size = _PIECE_CHARS
        self._num_values = 0

    def peek(self) -> str:
        """The next character that is not white space; "" at the end."""
        while True:
            self._at = self._space_end(self._at)
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more()

    def _space_end(self, start: int) -> int:
        match = _SPACE.match(self._text, start)
        return match.end() if match else start

    def elements(self) -> Iterator[Any]:
        """The elements of the array that comes next."""
        self._at += 1
        if self.peek() == "]":
            self._at += 1
            return
        while True:
            yield self.value()
            after = self.peek()
            self._at += 1
            if after == "]":
                return
            if after != ",":
                words = f"has no comma after row {self._num_values}, but {after!r}"
                raise self.broken(words if after else "ends in the middle of its array")
            if self.peek() == "]":
                raise self.broken(f"is not JSON{self._after()}: a comma before ']'")

    def value(self) -> Any:
        """The next value. Raises RunnerError when it is not JSON, or longer than the limit."""
        self.peek()
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._ended:
                    raise self.broken(f"is not JSON{self._after()}: {explained(error)}") from error
            except (ValueError, RecursionError) as error:
                raise self.broken(f"is not JSON{self._after()}: {error}") from error
            else:
                if end < len(self._text) or self._ended:
                    self._at = end
                    self._size = _PIECE_CHARS
                    self._num_values += 1
                    return value
            self._more()

    def _more(self) -> None:
        if len(self._text) - self._at > MOST_ROW_CHARS:
            raise self.broken(f"has a row or an object longer than {MOST_ROW_CHARS >> 20} million characters")
        piece = self._file.read(self._size)
        if flaw := text_flaw(piece):
            raise RunnerError(f"{self.name} {'is ' if flaw.startswith('not') else ''}{flaw}", "Save it as UTF-8.")
        self._ended = not piece
        self._size *= 2
        self._text = self._text[self._at :] + piece
        self._at = 0

    def _after(self) -> str:
        return f" after row {self._num_values}" if self._num_values else ""

    def broken(self, words: str) -> RunnerError:
        return RunnerError(f"{self.name} {words}", _HINT)
