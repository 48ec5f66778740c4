"""Plain text: each line that is not empty is a row with the column `text`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from stages.data.example import BadRowError
from stages.data.readers import Numbered, OnBytes
from stages.data.readers.opened import MOST_ROW_CHARS, check_length, open_text, text_flaw
from stages.data.readers.sniff import Form


def read(path: Path, name: str, form: Form, split: str, on_bytes: OnBytes) -> Numbered:
    """The rows with their line numbers."""
    with open_text(path, name, form, on_bytes) as file:
        for number, line in enumerate(iter(partial(file.readline, MOST_ROW_CHARS), ""), 1):
            if line.isspace():
                continue
            if flaw := text_flaw(line):
                yield number, BadRowError(flaw, "Save the file as UTF-8.")
            else:
                yield number, {"text": check_length(line, name).rstrip("\n")}
