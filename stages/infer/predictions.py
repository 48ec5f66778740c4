"""The predictions' files: JSON Lines in numbered parts, a `Prediction` a row and variant, in the rows' order."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

ROWS_PER_FILE = 10_000


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
