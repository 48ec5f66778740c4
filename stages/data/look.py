"""A look at rows that are on this machine, for rules: cheap, without a network and without heavy imports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from runner.errors import RunnerError
from stages.data.generated.grammar import Split
from stages.data.generated.named import parse_uri
from stages.data.readers import read_file
from stages.data.readers.sniff import sniff
from stages.data.sources.local import LocalFiles
from stages.data.sources.names import scheme_of, split_names
from stages.sections.recipe import Recipe

LIGHT = ("jsonl", "json", "csv", "text")
_GENERATED = {"instruction": "", "input": "", "output": ""}


def first_row(recipe: Recipe, split: str) -> dict[str, Any] | None:
    """The first row of a split; None where it cannot be seen here."""
    dataset = recipe.dataset
    if dataset.source.startswith("generated://"):
        return _generated(recipe, split)
    names = split_names(dataset).get(split)
    if scheme_of(dataset.source) or not names:
        return None
    files = LocalFiles(dataset.source)
    try:
        name = files.find(names[0])[0]
        path = files.checked(name)
        return _first_row(path, name, path.stat().st_mtime_ns, split) if path.is_file() else None
    except (RunnerError, OSError, ValueError):
        return None


def _generated(recipe: Recipe, split: str) -> dict[str, Any] | None:
    """Of pictures the row itself, whose image is looked at. None where another rule refuses the source."""
    from stages.data.generated.pictures import PictureSpec, generate

    with suppress(RunnerError, ValueError):
        spec = parse_uri(recipe.dataset.source, recipe.seed)
        if isinstance(spec, PictureSpec):
            return next(iter(generate(spec, cast(Split, split))), None)
    return dict(_GENERATED)


def light_rows(recipe: Recipe, split: str) -> Iterator[dict[str, Any]]:
    """Rows of a split from its first file, or generated ones; none where they cannot be read here in no time."""
    dataset = recipe.dataset
    if dataset.source.startswith("generated://"):
        from stages.data.sources.generated import rows

        yield from (row for _, row in rows(dataset, recipe.seed, split) if isinstance(row, dict))
        return
    names = split_names(dataset).get(split)
    if scheme_of(dataset.source) or not names:
        return
    with suppress(RunnerError, OSError, ValueError):
        files = LocalFiles(dataset.source)
        name = files.find(names[0])[0]
        path = files.checked(name)
        form = sniff(path, name)
        if form.kind in LIGHT and form.compression != "zstd":
            yield from (row for _, row in read_file(path, name) if isinstance(row, dict))


def look_at(path: Path, name: str, split: str) -> None:
    """Raise RunnerError when the beginning of a file of this machine shows that it cannot be read."""
    _first_row(path, name, path.stat().st_mtime_ns, split)


@lru_cache(maxsize=64)
def _first_row(path: Path, name: str, mtime_ns: int, split: str) -> dict[str, Any] | None:
    form = sniff(path, name)
    if form.compression and form.kind in ("parquet", "arrow"):  # would be unpacked into a file
        return None
    try:
        row = next(read_file(path, name, split), (0, None))[1]
    except ImportError:  # Arrow's library is not part of the light installation
        return None
    return row if isinstance(row, dict) else None
