"""The dataset's part of ingest: rows from their source, as Examples, in `train_set` and `test_set`."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.storage.artifact import Artifact, scan_folder
from stages.data.example import Example
from stages.data.shapes.convert import make_example
from stages.data.sources import Placed, Wanted, open_splits
from stages.data.sources.names import scheme_of, split_names
from stages.ingest.bad_rows import judge, skipped
from stages.ingest.choose import Groups, hold_out, sample, samples
from stages.ingest.collect import Collected, collect
from stages.ingest.remarks import remarks
from stages.sections.recipe import Recipe

FOLDERS = {"train": "train_set", "val": "train_set", "test": "test_set"}
Update = Callable[..., None]


@dataclass(frozen=True)
class DataParts:
    """What preparing the data gave: artifacts, metrics, and remarks for the terminal."""

    artifacts: list[Artifact]
    metrics: dict[str, Any]
    remarks: list[str]


def splits_of(recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """Splits that the source has, each with its files' names or patterns."""
    if scheme_of(recipe.dataset.source) == "generated":
        from stages.data.sources.generated import splits

        return splits(recipe.dataset, recipe.seed)
    return split_names(recipe.dataset)


def prepare_data(recipe: Recipe, folder: Path, update: Update) -> DataParts:
    """Write `train_set/` and `test_set/` into the folder: a line an Example. `update`: as `ProgressHandle.update`.

    Raises RunnerError with the kinds of bad rows and their first places, unless `dataset.on_bad_row` is skip.
    """
    begin = time.monotonic()
    paths = {split: folder / name / f"{split}.jsonl" for split, name in FOLDERS.items()}
    for target in {*(path.parent for path in paths.values()), folder / "raw"}:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
    wanted = Wanted(recipe.dataset, splits_of(recipe), recipe.seed, folder / "raw")
    rows = open_splits(wanted, lambda done, total: update(done, total, "bytes"))
    read, found = _collected(recipe, rows, paths, update)
    paths["test"].touch()
    shutil.rmtree(folder / "raw")
    lines = [*skipped(read, folder), *remarks(found, paths)]
    artifacts = [scan_folder(name, folder / name) for name in ("train_set", "test_set")]
    metrics = _metrics(read, found, artifacts, time.monotonic() - begin)
    return DataParts(artifacts, metrics | ({"remarks": lines} if lines else {}), lines)


def _collected(
    recipe: Recipe, rows: Mapping[str, Placed], paths: Mapping[str, Path], update: Update
) -> tuple[dict[str, Collected], dict[str, Collected]]:
    """What was read of each split, and what is kept of it after splits are held out and limits are met."""
    dataset = recipe.dataset
    groups = Groups(dataset.split, recipe.seed) if dataset.split else None
    draws = samples(dataset) or groups is not None
    read: dict[str, Collected] = {}
    for split, placed in rows.items():
        limit = None if draws else getattr(dataset.max_rows, split)
        read[split] = collect(
            placed, paths[split], _conversion(recipe, split), split, limit, _rows_told(update, dataset.source),
            groups.add if groups and split == "train" else _ignored,
        )  # fmt: skip
    judge(dataset, read)
    found = dict(read)
    if dataset.split and groups:
        found |= hold_out(dataset.split, groups, read["train"], paths)
    for split, each in list(found.items()):
        limit = getattr(dataset.max_rows, split)
        if draws and limit is not None and each.num_rows > limit:
            found[split] = sample(paths[split], split, limit, recipe.seed, each)
    return read, found


def _conversion(recipe: Recipe, split: str) -> Any:
    """Columns are kept of the rows that are predicted: slices and pages show them."""
    held = recipe.dataset.split is not None
    return make_example(recipe.dataset, recipe.train.stage, split, keep_columns=split == "test" or held)


def _ignored(example: Example) -> None:
    """A split whose rows are not grouped."""


def _rows_told(update: Update, source: str) -> Callable[[int], None]:
    """Rows are told of sources whose bytes are not known."""
    return (lambda done: update(done, None, "rows")) if scheme_of(source) in ("generated", "hf") else lambda done: None


def _metrics(
    read: Mapping[str, Collected], found: Mapping[str, Collected], artifacts: list[Artifact], elapsed_s: float
) -> dict[str, Any]:
    return {
        "rows": {split: each.num_rows for split, each in found.items()},
        "skipped": {split: each.num_bad for split, each in read.items()},
        "rows_per_s": round(sum(each.num_rows for each in read.values()) / max(elapsed_s, 1e-3)),
        "bytes": sum(artifact.size_bytes for artifact in artifacts),
    }
