"""Parquet, batch by batch."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from runner.errors import RunnerError
from stages.data.readers import Numbered, OnBytes
from stages.data.readers.arrow import BATCH_ROWS, rows_of
from stages.data.readers.opened import unpacked_file
from stages.data.readers.sniff import Form


def read(path: Path, name: str, form: Form, split: str, on_bytes: OnBytes) -> Numbered:
    """The rows, numbered from 1. Raises RunnerError when the file is cut off."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with unpacked_file(path, name, form) as whole:
        try:
            with pq.ParquetFile(whole) as file:
                yield from zip(count(1), rows_of(file.iter_batches(BATCH_ROWS), name), strict=False)
        except (pa.ArrowInvalid, OSError) as error:
            raise RunnerError(f"{name} is cut off or corrupt: {error}", "Get the file again.") from error
