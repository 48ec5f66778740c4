"""The files of a source on this machine: found by name or pattern, downloaded side by side where they are elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from math import inf
from pathlib import Path

from runner.errors import RunnerError
from runner.storage.store import checked_key
from stages.data.sources import FILE_SOURCES
from stages.data.sources.base import Count, FileSource, OnBytes
from stages.data.sources.names import scheme_of

_MOST_PARALLEL = 16
OWN_FILES_HINT = "Write a pattern that leaves it out, or list the files: what is trained would be scored."


def fetch_patterns(
    source: str,
    patterns: Mapping[str, Sequence[str]],
    folder: Path,
    *,
    endpoint_url: str | None = None,
    anonymous: bool = False,
    on_bytes: OnBytes = lambda done, total: None,
    max_gib: float = inf,
) -> dict[str, dict[str, Path]]:
    """For each split the files that its names and patterns mean: name -> local path, in order.

    max_gib: `dataset.max_gib`, of all of them together, packed ones as they are.
    Raises RunnerError naming the file (bucket and key, or URL) when it is missing or cannot be read, or when two
    splits mean the same file.
    """
    files = open_files(source, endpoint_url, anonymous)
    for names in patterns.values():
        for name in names:
            checked_key(name)
    found = {
        split: list(dict.fromkeys(name for pattern in names for name in files.find(pattern)))
        for split, names in patterns.items()
    }
    for split, name, other in shared_files(patterns, found):
        raise RunnerError(f"dataset.files.{split} means {name}, which is the file of {other} too", OWN_FILES_HINT)
    count = Count(on_bytes, max_gib * (1 << 30), f"dataset.max_gib={max_gib:g}")
    paths = _fetched(files, sorted({name for names in found.values() for name in names}), folder, count)
    return {split: {name: paths[name] for name in names} for split, names in found.items()}


def shared_files(
    patterns: Mapping[str, Sequence[str]], found: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, str, str]]:
    """(split, file, other split) where a pattern means a file of another split."""
    seen: dict[str, str] = {}
    for split, names in found.items():
        for name in names:
            other = seen.setdefault(name, split)
            if other != split and not (name in patterns[split] and name in patterns[other]):
                yield split, name, other


def fetch_files(
    source: str,
    names: Sequence[str],
    folder: Path,
    *,
    endpoint_url: str | None = None,
    anonymous: bool = False,
    on_bytes: OnBytes = lambda done, total: None,
) -> dict[str, Path]:
    """Local paths of the named files of the source, side by side and with retries downloaded into the folder.

    Files of a local source are used where they are. A file appears in the folder whole or not at all.
    Raises RunnerError naming the file (bucket and key, or URL) when it is missing or cannot be read.
    """
    found = fetch_patterns(
        source, {name: [name] for name in names}, folder, endpoint_url=endpoint_url, anonymous=anonymous,
        on_bytes=on_bytes,
    )  # fmt: skip
    return {name: found[name][name] for name in names}


def open_files(source: str, endpoint_url: str | None, anonymous: bool) -> FileSource:
    """The files below an address. Raises RunnerError for a scheme that has none."""
    scheme = scheme_of(source)
    if scheme not in FILE_SOURCES:
        raise RunnerError(
            f"dataset.source={source} is not a source of files",
            "Give s3://, gs://, az://, https://, package://, a local folder, or generated://viggo?...",
        )
    opened: FileSource = import_module(FILE_SOURCES[scheme]).open_source(source, endpoint_url, anonymous)
    return opened


def _fetched(files: FileSource, names: Sequence[str], folder: Path, count: Count) -> dict[str, Path]:
    def one(name: str) -> Path:
        if (here := files.local(name)) is not None:
            count.expect(here.stat().st_size)
            return here
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        try:
            files.fetch(name, part, count)
            return part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    with ThreadPoolExecutor(min(len(names), _MOST_PARALLEL) or 1) as pool:
        return dict(zip(names, pool.map(one, names), strict=True))
