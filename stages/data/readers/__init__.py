"""Readers of files: each turns a file of one form into rows. The form is recognised by content (`sniff`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from stages.data.example import BadRowError
from stages.data.readers.sniff import Form, sniff

Row = dict[str, Any]
Numbered = Iterator[tuple[int, "Row | BadRowError"]]
"""Rows with their numbers from 1: of the line in text files, of the row in others."""
OnBytes = Callable[[int], None]

READERS = {
    "jsonl": "stages.data.readers.jsonl",
    "json": "stages.data.readers.json_document",
    "csv": "stages.data.readers.csv_table",
    "text": "stages.data.readers.text",
    "parquet": "stages.data.readers.parquet",
    "arrow": "stages.data.readers.arrow",
}
"""Form -> the module whose `read(path, name, form, split, on_bytes)` gives its rows."""


def read_file(path: Path, name: str, split: str = "train", on_bytes: OnBytes = lambda done: None) -> Numbered:
    """The rows of a file, one at a time. name: of the file, for messages. on_bytes: called with the bytes read so far.

    Raises RunnerError with one sentence when the file cannot be read at all.
    """
    form = sniff(path, name)
    rows: Numbered = import_module(READERS[form.kind]).read(path, name, form, split, on_bytes)
    return rows


__all__ = ["READERS", "Form", "Numbered", "OnBytes", "Row", "read_file", "sniff"]
