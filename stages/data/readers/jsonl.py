"""JSON Lines: one object a line; a line may end in LF, CR LF or CR, and in nothing else."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

from stages.data.example import BadRowError
from stages.data.messages import kind
from stages.data.readers import Numbered, OnBytes, Row
from stages.data.readers.json_values import DECODER, explained, why_not
from stages.data.readers.opened import MOST_ROW_CHARS, check_length, open_text, text_flaw
from stages.data.readers.sniff import Form

_FIX = "Write one JSON object a line."
_PYTHON = re.compile(r"True|False|None")


def read(path: Path, name: str, form: Form, split: str, on_bytes: OnBytes) -> Numbered:
    """The rows with their line numbers; a line that holds none is a BadRowError."""
    with open_text(path, name, form, on_bytes) as file:
        for number, line in enumerate(iter(partial(file.readline, MOST_ROW_CHARS), ""), 1):
            if line.isspace():
                continue
            yield number, parse(check_length(line, name))


def parse(line: str) -> Row | BadRowError:
    """The object of a line, without a byte order mark: joined files have one in their middle."""
    if flaw := text_flaw(line):
        return BadRowError(flaw, "Save the file as UTF-8.")
    text = line.strip().lstrip("\ufeff")
    try:
        row = DECODER.decode(text)
    except json.JSONDecodeError as error:
        return BadRowError(*_explained(text, error))
    except (ValueError, RecursionError) as error:
        return BadRowError(f"not JSON: {why_not(error)}", "Correct the value.")
    return row if isinstance(row, dict) else BadRowError(f"not a JSON object but {kind(row)}", how_to_write(row))


def how_to_write(value: Any) -> str:
    """What to do about a row that is not an object."""
    if isinstance(value, str):
        return 'Write {"text": "..."} around each text, one a line.'
    return "Remove it." if value is None else _FIX


def _explained(text: str, error: json.JSONDecodeError) -> tuple[str, str]:
    """Why a line is not JSON, and what to do."""
    if error.msg == "Extra data":
        return f"not one JSON object: after it comes {text[error.pos : error.pos + 20]!r}", _FIX
    printed = text.startswith("{'") or _PYTHON.match(text, error.pos)
    fix = "Write it by json.dumps: this is how Python prints an object." if printed else _FIX
    return f"not JSON: {explained(error)} at character {error.pos + 1}", fix
