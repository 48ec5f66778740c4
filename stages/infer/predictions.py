"""The predictions' files: JSON Lines in numbered parts, one object for each test row and variant, in the rows' order.

An object holds `id`, `variant` (`tuned` or `base`), `prediction`, `reference`, `num_input_tokens`,
`num_generated_tokens`, `error` (null, or why the engine refused the row) and `row` (the row's own columns).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from runner.storage.artifact import Artifact

TUNED = "tuned"
BASE = "base"
ROWS_PER_FILE = 10_000

_MAX_ERROR_CHARS = 500


def prediction_line(
    source: Mapping[str, Any], variant: str, reference: str, output: Mapping[str, Any], error: str | None
) -> str:
    """One line of a file. source: the test row. output: `generated_text` and the token counts, by vLLM's names.

    A row with an error has no prediction: its text is empty.
    """
    line = {
        "id": source["id"],
        "variant": variant,
        "prediction": "" if error else output["generated_text"],
        "reference": reference,
        "num_input_tokens": 0 if error else output["num_input_tokens"],
        "num_generated_tokens": 0 if error else output["num_generated_tokens"],
        "error": error.strip().splitlines()[0][:_MAX_ERROR_CHARS] if error else None,
        "row": {key: value for key, value in source.items() if key != "id"},
    }
    return json.dumps(line, ensure_ascii=False)


def write_parts(folder: Path, lines: Iterable[str]) -> None:
    """Write the lines into the numbered files of a folder that appears when it is complete."""
    temporary = folder.with_name(f".{folder.name}")
    for old in (temporary, folder):
        shutil.rmtree(old, ignore_errors=True)
    temporary.mkdir(parents=True)
    for number, part in enumerate(_pieces(lines, ROWS_PER_FILE)):
        with (temporary / f"part-{number:05d}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in part)
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(folder)


def _pieces(lines: Iterable[str], size: int) -> Iterator[Iterator[str]]:
    """The lines in groups of that size, each to be used up before the next."""
    remaining = iter(lines)
    for first in remaining:
        yield chain((first,), islice(remaining, size - 1))


def prediction_rows(predictions: Artifact) -> Iterator[dict[str, Any]]:
    """Every row of the predictions, file by file, one at a time."""
    for entry in predictions.files:
        if entry.path.endswith(".jsonl"):
            with (predictions.path / entry.path).open(encoding="utf-8") as file:
                for line in file:
                    yield json.loads(line)
