"""CSV and TSV: a header, then rows of as many fields, as text. Quotes, line breaks inside them and a BOM are known.

Columns without a name before those with one, such as the index that pandas writes, are left out, and so are empty
ones after them; so are rows without a text in any field.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from runner.text import count_text
from stages.data.example import BadRowError, trimmed
from stages.data.readers import Numbered, OnBytes
from stages.data.readers.dialect import MOST_LINES, delimiter_of, header_at, title_lines
from stages.data.readers.opened import MOST_ROW_CHARS, open_text, text_flaw
from stages.data.readers.sniff import Form

_FIX = 'Quote fields that hold the delimiter, a quote or a line break, and write a quote inside them twice ("").'
_FEWER = "Write a delimiter for each field of the header, also for empty ones; quote fields that hold a line break."
_SAVE = "Save the file as UTF-8."
_REPEATED = BadRowError("repeats the header", "Remove the line: files were joined with their headers.")
_RULE = BadRowError("is a rule of dashes under the header", "Remove the line, or have the table written as CSV.")
_DASHES = re.compile(r"\s*:?-{2,}:?\s*")
_NONE = "\x1f"
"""The delimiter of a table of one column, whose texts may hold any other."""


@dataclass(frozen=True)
class _Header:
    """names: of the columns, "" for one without. padded: whether spaces around delimiters are left out of the texts."""

    names: list[str]
    padded: bool

    @property
    def least(self) -> int:
        """Fields that a row has at least: those up to the last column with a name."""
        return max((at for at, name in enumerate(self.names, 1) if name), default=len(self.names))

    @cached_property
    def unnamed(self) -> list[int]:
        """The fields without a name after the first one with a name. Those before it are an index."""
        first = next((at for at, name in enumerate(self.names) if name), len(self.names))
        return [at for at, name in enumerate(self.names) if not name and at > first]


def read(path: Path, name: str, form: Form, split: str, on_bytes: OnBytes) -> Numbered:
    """The rows with the number of their first line. Raises RunnerError for a header that names a column twice."""
    csv.field_size_limit(MOST_ROW_CHARS)
    with open_text(path, name, form, on_bytes, newline="") as file:
        head = list(itertools.islice(file, MOST_LINES))
        before = header_at(head)
        first, delimiter = "".join(head[before : before + 1]), form.delimiter or delimiter_of(head)
        lines = itertools.chain([first.lstrip("\ufeff")], head[before + 1 :], file)
        between = first.split(delimiter)
        spaced = all(each[:1] == " " for each in between[1:]) and len(between) > 1
        rows: Any = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=spaced)
        try:
            names = _names(next(rows, []), name)
        except csv.Error as error:
            raise RunnerError(f"{name} has a header that cannot be read: {_explained(error)}", _FIX) from error
        if len(names) == 1:
            if above := title_lines(head[before:]):
                many = f"{count_text(above, 'line')} above its header, the first {names[0]!r}"
                raise RunnerError(f"{name} has {many}", f"Remove them: the header is line {before + above + 1}.")
            before += rows.line_num
            rows = csv.reader(lines, delimiter=_NONE, strict=True)
        padded = spaced and all(each[-1:] == " " for each in between[:-1])
        yield from _rows(rows, _Header(names, padded), before)


def _names(header: list[str], name: str) -> list[str]:
    header = [trimmed(each) for each in header]
    twice = [each for each in header if each and header.count(each) > 1]
    if twice:
        raise RunnerError(f"{name} has the column {twice[0]!r} twice in its header", "Give each column its own name.")
    return header


def _rows(rows: Any, header: _Header, before: int) -> Numbered:
    """The rows with the numbers of their first lines. before: lines of the file that the reader has not seen."""
    top = start = rows.line_num + before + 1
    while True:
        try:
            for values in rows:
                number, start = start, rows.line_num + before + 1
                text = "".join(values)
                if not text:
                    continue
                row = _row(values, text, header, number == top)
                if isinstance(row, dict):
                    yield number, row
                else:
                    yield from _lines(number, start, row)
        except csv.Error as error:
            number, start = start, rows.line_num + before + 1
            yield from _lines(number, start, BadRowError(f"not CSV: {_explained(error)}", _FIX))
            continue
        return


def _row(values: list[str], text: str, header: _Header, is_first: bool) -> dict[str, Any] | BadRowError:
    """The row of a record. text: of all its fields. is_first: whether it comes right after the header."""
    names, count = header.names, len(header.names)
    if len(values) != count and (len(values) < header.least or any(values[count:])):
        fields = count_text(len(values), "field")
        fix = _FEWER if len(values) < count else f"{_FIX} The header has a name for each field."
        return BadRowError(f"has {fields}, and the header has {count}", fix)
    if flaw := "" if text.isascii() and "\0" not in text else text_flaw(text):
        return BadRowError(flaw, _SAVE)
    if count > 1 and values[0].endswith(names[0]) and _repeats(values, names):
        return _REPEATED
    if is_first and count > 1 and all(_DASHES.fullmatch(value) for value in values if value):
        return _RULE
    if any(values[at] for at in header.unnamed if at < len(values)):
        return _unnamed(header)
    if header.padded:
        values = [value.strip(" ") for value in values]
    row = dict(zip(names, values, strict=False))
    row.pop("", None)
    return row


def _unnamed(header: _Header) -> BadRowError:
    named = list(filter(None, header.names))
    why = f"has {len(header.names)} fields, and the header names {len(named)} of them: {', '.join(map(repr, named))}"
    return BadRowError(why, "Remove what is above the header, such as a title, or name every column in it.")


def _explained(error: csv.Error) -> str:
    text = str(error)
    if "expected after" in text:
        return "after a quote that closes a field comes more text"
    return "a quote is not closed" if text == "unexpected end of data" else text


def _repeats(values: list[str], header: list[str]) -> bool:
    """Whether a record is the header again, as where files were joined with their headers."""
    return [trimmed(each) for each in values[: len(header)]] == header


def _lines(start: int, end: int, error: BadRowError) -> Iterator[tuple[int, BadRowError]]:
    """The error for each line of a record: a quote that is not closed makes one record of many rows."""
    return ((number, error) for number in range(start, end))
