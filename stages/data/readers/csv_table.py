"""CSV and TSV: a header, then rows of as many fields, as text. Quotes, line breaks inside them and a BOM are known.

Columns without a name, such as the index that pandas writes, are left out; so are rows without a text in any field.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from runner.errors import RunnerError
from stages.data.example import BadRowError
from stages.data.readers import Numbered, OnBytes
from stages.data.readers.opened import MOST_ROW_CHARS, open_text, text_flaw
from stages.data.readers.sniff import Form, delimiter_of

_FIX = 'Quote fields that hold the delimiter, a quote or a line break, and write a quote inside them twice ("").'
_SAVE = "Save the file as UTF-8."
_REPEATED = BadRowError("repeats the header", "Remove the line: files were joined with their headers.")
_NONE = "\x1f"
"""The delimiter of a table of one column, whose texts may hold any other."""


def read(path: Path, name: str, form: Form, split: str, on_bytes: OnBytes) -> Numbered:
    """The rows with the number of their first line. Raises RunnerError for a header that names a column twice."""
    csv.field_size_limit(MOST_ROW_CHARS)
    with open_text(path, name, form, on_bytes, newline="") as file:
        first, before = _first_line(file)
        delimiter = form.delimiter or delimiter_of(first.rstrip("\r\n"))
        spaced = all(each[:1] == " " for each in first.split(delimiter)[1:]) and delimiter in first
        rows: Any = csv.reader(
            itertools.chain([first], file), delimiter=delimiter, strict=True, skipinitialspace=spaced
        )
        try:
            header = _header(next(rows, []), name)
        except csv.Error as error:
            raise RunnerError(f"{name} has a header that cannot be read: {error}", _FIX) from error
        if len(header) == 1:
            before += rows.line_num
            rows = csv.reader(file, delimiter=_NONE, strict=True)
        yield from _rows(rows, header, before)


def _first_line(file: IO[str]) -> tuple[str, int]:
    """The header's first line, without Excel's `sep=;` and empty lines before it, and how many lines these were."""
    for before, line in enumerate(file):
        if line.strip() and not (line.lower().startswith("sep=") and len(line.strip()) <= 5):
            return line, before
    return "", 0


def _header(header: list[str], name: str) -> list[str]:
    header = [each.strip().lstrip("\ufeff") for each in header]
    twice = [each for each in header if each and header.count(each) > 1]
    if twice:
        raise RunnerError(f"{name} has the column {twice[0]!r} twice in its header", "Give each column its own name.")
    return header


def _rows(rows: Any, header: list[str], before: int) -> Numbered:
    count, unnamed = len(header), "" in header
    start = rows.line_num + before + 1
    while True:
        try:
            for values in rows:
                number, start = start, rows.line_num + before + 1
                text = "".join(values)
                if not text:
                    continue
                if len(values) == count or (len(values) > count and not any(values[count:])):
                    row = dict(zip(header, values, strict=False))
                    if unnamed:
                        row.pop("", None)
                    flaw = "" if text.isascii() and "\0" not in text else text_flaw(text)
                    if count > 1 and values[0].endswith(header[0]) and _repeats(values, header):
                        yield number, _REPEATED
                    else:
                        yield number, BadRowError(flaw, _SAVE) if flaw else row
                    continue
                words = f"has {len(values)} fields, and the header has {count}"
                yield from _lines(number, start, BadRowError(words, f"{_FIX} The header has a name for each field."))
        except csv.Error as error:
            number, start = start, rows.line_num + before + 1
            yield from _lines(number, start, BadRowError(f"not CSV: {error}", _FIX))
            continue
        return


def _repeats(values: list[str], header: list[str]) -> bool:
    """Whether a record is the header again, as where files were joined with their headers."""
    return [each.strip().lstrip("\ufeff") for each in values[: len(header)]] == header


def _lines(start: int, end: int, error: BadRowError) -> Iterator[tuple[int, BadRowError]]:
    """The error for each line of a record: a quote that is not closed makes one record of many rows."""
    return ((number, error) for number in range(start, end))
