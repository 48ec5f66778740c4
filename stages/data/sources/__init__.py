"""Where rows come from. A source of files has files to list and fetch; any other gives rows itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from stages.data.example import BadRowError
from stages.data.readers import read_file
from stages.data.sources.names import scheme_of
from stages.sections.dataset import Dataset

Placed = Iterable[tuple[str, "dict[str, Any] | BadRowError"]]
"""Rows with their places: "file:line", or the split and number of rows without a file."""
OnBytes = Callable[[int, "int | None"], None]
"""Called with bytes done and bytes in all (None: unknown), from any thread."""

FILE_SOURCES = {
    "": "stages.data.sources.local",
    "s3": "stages.data.sources.object_store",
    "gs": "stages.data.sources.arrow_store",
    "az": "stages.data.sources.arrow_store",
    "https": "stages.data.sources.web",
    "http": "stages.data.sources.web",
    "package": "stages.data.sources.package",
}
"""Scheme -> the module whose `open_source(source, endpoint_url, anonymous)` gives a FileSource."""
ROW_SOURCES = {"hf": "stages.data.sources.hub", "generated": "stages.data.sources.generated"}
"""Scheme -> the module whose `rows(dataset, seed, split)` gives the split's rows."""
SCHEMES = (*(each for each in FILE_SOURCES if each), *ROW_SOURCES)


@dataclass(frozen=True)
class Wanted:
    """What is read. splits: the files' names or patterns of each split; of sources of rows, the split's name there."""

    dataset: Dataset
    splits: Mapping[str, tuple[str, ...]]
    seed: int
    folder: Path
    """Where files are downloaded to."""


def open_splits(wanted: Wanted, on_bytes: OnBytes) -> dict[str, Placed]:
    """The rows of each split, read as they are asked for. Raises RunnerError for what cannot be found or read."""
    if scheme_of(wanted.dataset.source) in ROW_SOURCES:
        return rows_of_source(wanted)
    return rows_of_files(files_of(wanted, on_bytes), on_bytes)


def rows_of_source(wanted: Wanted) -> dict[str, Placed]:
    """The rows of each split of a source that has no files."""
    rows = import_module(ROW_SOURCES[scheme_of(wanted.dataset.source)]).rows
    return {split: rows(wanted.dataset, wanted.seed, split) for split in wanted.splits}


def files_of(wanted: Wanted, on_bytes: OnBytes) -> dict[str, dict[str, Path]]:
    """The files of each split, on this machine: name -> path. Raises RunnerError for what cannot be found."""
    dataset = wanted.dataset
    if scheme_of(dataset.source) not in FILE_SOURCES:
        raise RunnerError(f"dataset.source={dataset.source} has an unknown scheme", f"There are: {', '.join(SCHEMES)}.")
    from stages.data.sources.fetch import fetch_patterns

    return fetch_patterns(
        dataset.source, {split: list(names) for split, names in wanted.splits.items()}, wanted.folder,
        endpoint_url=dataset.endpoint_url, anonymous=dataset.anonymous, on_bytes=on_bytes,
        max_gib=dataset.max_gib,
    )  # fmt: skip


def rows_of_files(files: Mapping[str, Mapping[str, Path]], on_bytes: OnBytes) -> dict[str, Placed]:
    """The rows of each split's files, one file after the other."""
    total = sum(path.stat().st_size for paths in files.values() for path in paths.values())
    count = _Read(total, on_bytes)
    return {split: _rows(paths, split, count) for split, paths in files.items()}


def _rows(files: Mapping[str, Path], split: str, count: _Read) -> Placed:
    for name, path in files.items():
        for number, row in read_file(path, name, split, count.of(name)):
            yield f"{name}:{number}", row


class _Read:
    """Sums up the bytes that were read of several files."""

    def __init__(self, total: int, on_bytes: OnBytes) -> None:
        self._total, self._on_bytes, self._done = total, on_bytes, dict[str, int]()

    def of(self, name: str) -> Callable[[int], None]:
        def report(done: int) -> None:
            self._done[name] = done
            self._on_bytes(sum(self._done.values()), self._total)

        return report


__all__ = [
    "FILE_SOURCES", "ROW_SOURCES", "SCHEMES", "Placed", "Wanted", "files_of", "open_splits", "rows_of_files",
    "rows_of_source", "scheme_of",
]  # fmt: skip
