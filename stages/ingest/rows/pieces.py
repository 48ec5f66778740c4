"""Reading of splits: one file after the other, or many files in pieces side by side, with the same result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.data.shapes.convert import MESSAGE_STAGES, Convert, make_example
from stages.data.shapes.quick import QuickLine, quick_line
from stages.data.sources import ROW_SOURCES, Placed, Wanted, files_of, rows_of_files, rows_of_source, scheme_of
from stages.ingest.rows.choose import Groups, digits_below, place_rows, samples
from stages.ingest.rows.collect import Collected, Watch, collect
from stages.ingest.rows.control import ControlTokens, tokens_of
from stages.models.facts import model_facts
from stages.sections.recipe import Recipe

Update = Callable[..., None]
Spread = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], list[Any]]
"""Calls the function with each tuple of arguments; results in order."""
LEAST_BYTES = 64 << 20
"""Less than this is read sooner than a worker starts."""
MOST_PIECES = 32


def one_by_one(function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The calls in this process."""
    return [function(*args) for args in calls]


@dataclass(frozen=True)
class Piece:
    """Some files of a split, one after the other, and the file that their Examples go to."""

    split: str
    files: Mapping[str, Path]
    target: Path


def draws(recipe: Recipe) -> bool:
    """Whether all rows are read before some are kept, by the seed."""
    return samples(recipe.dataset) or recipe.dataset.split is not None


def read_splits(
    recipe: Recipe, wanted: Wanted, paths: Mapping[str, Path], update: Update, spread: Spread
) -> tuple[dict[str, Collected], Groups | None]:
    """Write the Examples of each split to its path: what became of its rows, and the groups of the training rows."""
    tokens = _control_tokens(recipe)
    if scheme_of(recipe.dataset.source) in ROW_SOURCES:
        rows = rows_of_source(wanted)
        return _in_order(recipe, rows, paths, tokens, lambda done: update(done, None, "rows"))
    files = files_of(wanted, lambda done, total: update(done, total, "bytes"))
    if not draws(recipe) and any(limit is not None for limit in recipe.dataset.max_rows.model_dump().values()):
        pieces: list[Piece] = []
    else:
        pieces = [piece for split, each in files.items() for piece in _pieces(split, each, paths[split])]
    if len(pieces) <= len(files):
        rows = rows_of_files(files, lambda done, total: update(done, total, "bytes"))
        return _in_order(recipe, rows, paths, tokens, lambda done: None)
    made = spread(read_piece, [(recipe, piece, tokens) for piece in pieces])
    later = _places(pieces, made, paths)
    spread(place_rows, later)
    for path, *_ in later:
        path.unlink()
    return _merged(recipe, pieces, made)


def _places(
    pieces: Sequence[Piece], made: Sequence[tuple[Collected, Any]], paths: Mapping[str, Path]
) -> list[tuple[Path, Path, str, int, int]]:
    """The file of each piece that follows others of its split, the split's file and name, and how many rows and bytes
    come before. The first piece of a split becomes the split's file, to which the others are written side by side."""
    later, rows, sizes = [], dict[str, int](), dict[str, int]()
    for piece, (collected, _) in zip(pieces, made, strict=True):
        split, count, size = piece.split, collected.num_rows, piece.target.stat().st_size
        if split in rows:
            start = rows[split]
            later.append((piece.target, paths[split], split, start, sizes[split]))
            size += digits_below(start + count) - digits_below(start) - digits_below(count)
        else:
            piece.target.replace(paths[split])
        rows[split], sizes[split] = rows.get(split, 0) + count, sizes.get(split, 0) + size
    return later


def _control_tokens(recipe: Recipe) -> list[str]:
    """The model's own, where it is on this machine."""
    folder = model_facts(recipe, None).folder
    return tokens_of(folder) if folder is not None else []


def _in_order(
    recipe: Recipe, rows: Mapping[str, Placed], paths: Mapping[str, Path], tokens: list[str],
    on_rows: Callable[[int], None],
) -> tuple[dict[str, Collected], Groups | None]:  # fmt: skip
    groups, control = _groups(recipe), ControlTokens(tokens)
    found = {}
    for split, placed in rows.items():
        limit = None if draws(recipe) else getattr(recipe.dataset.max_rows, split)
        watch = Watch(on_rows, groups.add if groups and split == "train" else None, control=control)
        found[split] = collect(placed, paths[split], _conversion(recipe, split), split, limit, watch)
    return found, groups


def _groups(recipe: Recipe) -> Groups | None:
    return Groups(recipe.dataset.split, recipe.seed) if recipe.dataset.split else None


def _conversion(recipe: Recipe, split: str) -> tuple[Convert, QuickLine | None]:
    """Columns are kept of the rows that are predicted: slices and pages show them."""
    keep, stage = split == "test" or recipe.dataset.split is not None, recipe.train.stage
    quick = quick_line(recipe.dataset.prompt, keep) if stage in MESSAGE_STAGES else None
    return make_example(recipe.dataset, stage, split, keep_columns=keep), quick


def _pieces(split: str, files: Mapping[str, Path], target: Path) -> list[Piece]:
    """The files in up to MOST_PIECES runs of about as many bytes; one where they are small."""
    sizes = {name: path.stat().st_size for name, path in files.items()}
    total = sum(sizes.values())
    most = max(LEAST_BYTES / 4, total / MOST_PIECES)
    runs: list[list[str]] = [[]]
    filled = 0.0
    for name, size in sizes.items():
        if runs[-1] and filled + size / 2 > most and total >= LEAST_BYTES:
            runs.append([])
            filled = 0.0
        runs[-1].append(name)
        filled += size
    return [
        Piece(split, {name: files[name] for name in run}, target.with_name(f".{split}-{number:03d}.part"))
        for number, run in enumerate(runs)
    ]


def read_piece(recipe: Recipe, piece: Piece, tokens: list[str]) -> tuple[Collected, Groups | None]:
    """Write the Examples of a piece, numbered from zero: what became of its rows, and the groups of training rows."""
    groups = _groups(recipe) if piece.split == "train" else None
    rows = rows_of_files({piece.split: piece.files}, lambda done, total: None)[piece.split]
    watch = Watch(on_row=groups.add if groups else None, control=ControlTokens(tokens))
    return collect(rows, piece.target, _conversion(recipe, piece.split), piece.split, None, watch), groups


def _merged(
    recipe: Recipe, pieces: Sequence[Piece], made: Sequence[tuple[Collected, Groups | None]]
) -> tuple[dict[str, Collected], Groups | None]:
    """What became of the rows of all pieces, one after the other."""
    groups, found = _groups(recipe), dict[str, Collected]()
    for piece, (collected, own) in zip(pieces, made, strict=True):
        found.setdefault(piece.split, Collected()).merge(collected)
        if groups and own:
            groups.merge(own)
    return found, groups
