"""CSV and TSV: a header, then rows of as many fields, as text. Quotes, line breaks inside them and a BOM are known."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from runner.errors import RunnerError
from stages.data.example import BadRowError
from stages.data.readers import Numbered, OnBytes
from stages.data.readers.opened import MOST_ROW_CHARS, is_text, open_text
from stages.data.readers.sniff import Form, delimiter_of

_FIX = "Quote fields that hold the delimiter, a quote or a line break."


def read(path: Path, name: str, form: Form, split: str, on_bytes: OnBytes) -> Numbered:
    """The rows with the number of their last line. Raises RunnerError for a header that names a column twice."""
    csv.field_size_limit(MOST_ROW_CHARS)
    with open_text(path, name, form, on_bytes, newline="") as file:
        first, before = _first_line(file)
        delimiter = form.delimiter or delimiter_of(first.rstrip("\r\n"))
        rows = csv.reader(itertools.chain([first], file), delimiter=delimiter, strict=True)
        try:
            header = _header(next(rows, []), name)
        except csv.Error as error:
            raise RunnerError(f"{name} has a header that cannot be read: {error}", _FIX) from error
        yield from _rows(rows, header, before)


def _first_line(file: IO[str]) -> tuple[str, int]:
    """The header's first line, without Excel's `sep=;` and empty lines before it, and how many lines these were."""
    for before, line in enumerate(file):
        if line.strip() and not (line.lower().startswith("sep=") and len(line.strip()) <= 5):
            return line, before
    return "", 0


def _header(header: list[str], name: str) -> list[str]:
    header = [each.strip() for each in header]
    twice = [each for each in header if header.count(each) > 1]
    if twice:
        raise RunnerError(f"{name} has the column {twice[0]!r} twice in its header", "Give each column its own name.")
    return header


def _rows(rows: Iterator[list[str]], header: list[str], before: int) -> Numbered:
    count = len(header)
    while True:
        try:
            values = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield rows.line_num + before, BadRowError(f"not CSV: {error}", _FIX)  # type: ignore[attr-defined]
            continue
        number: int = rows.line_num + before  # type: ignore[attr-defined]
        if len(values) == count:
            text = "".join(values)
            yield number, dict(zip(header, values, strict=True)) if is_text(text) else BadRowError("not UTF-8")
        elif values:
            yield number, BadRowError(f"has {len(values)} fields, and the header has {count}", _FIX)
