"""JSON Lines: one object a line; a line may end in LF, CR LF or CR, and in nothing else."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from stages.data.example import BadRowError
from stages.data.messages import kind
from stages.data.readers import Numbered, OnBytes, Row
from stages.data.readers.json_values import DECODER
from stages.data.readers.opened import MOST_ROW_CHARS, check_length, is_text, open_text
from stages.data.readers.sniff import Form

_FIX = "Write one JSON object a line."


def read(path: Path, name: str, form: Form, split: str, on_bytes: OnBytes) -> Numbered:
    """The rows with their line numbers; a line that holds none is a BadRowError."""
    with open_text(path, name, form, on_bytes) as file:
        for number, line in enumerate(iter(partial(file.readline, MOST_ROW_CHARS), ""), 1):
            if line.isspace():
                continue
            yield number, parse(check_length(line, name))


def parse(line: str) -> Row | BadRowError:
    """The object of a line."""
    if not is_text(line):
        return BadRowError("not UTF-8", "Save the file as UTF-8.")
    try:
        row = DECODER.decode(line.strip())
    except json.JSONDecodeError as error:
        return BadRowError(f"not JSON: {error.msg} at character {error.pos + 1}", _FIX)
    except (ValueError, RecursionError) as error:
        return BadRowError(f"not JSON: {error}", "Correct the value.")
    return row if isinstance(row, dict) else BadRowError(f"not a JSON object but {kind(row)}", _FIX)
