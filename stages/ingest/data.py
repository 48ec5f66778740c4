"""The dataset's part of ingest: rows from their source, as Examples, in `train_set` and `test_set`."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from runner.storage.artifact import Artifact, scan_folder
from runner.text import count_text
from stages.data.prompt import TEMPLATES, braced, prompt_columns
from stages.data.shapes.conversation import SYSTEMS
from stages.data.shapes.extras import MEDIA
from stages.data.shapes.kto import LABELS
from stages.data.shapes.preference import CHOSEN, REJECTED
from stages.data.sources import Wanted
from stages.data.sources.names import scheme_of, split_names
from stages.data.split_column import NONE
from stages.ingest.rows.bad_rows import judge, skipped
from stages.ingest.rows.choose import NAMES, Groups, fewer_than_asked, hold_out, only_good, sample
from stages.ingest.rows.collect import Collected
from stages.ingest.rows.pieces import Spread, Update, draws, one_by_one, read_splits
from stages.ingest.rows.remarks import lengths, remarks
from stages.sections.recipe import Recipe

FOLDERS = {"train": "train_set", "val": "train_set", "test": "test_set"}


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


def prepare_data(recipe: Recipe, folder: Path, update: Update, spread: Spread = one_by_one) -> DataParts:
    """Write `train_set/` and `test_set/` into the folder: a line an Example. `update`: as `ProgressHandle.update`.

    spread: calls a function for parts of the files, side by side where it can.
    Raises RunnerError with the kinds of bad rows and their first places, unless `dataset.on_bad_row` is skip.
    """
    begin = time.monotonic()
    paths = {split: folder / name / f"{split}.jsonl" for split, name in FOLDERS.items()}
    for target in {*(path.parent for path in paths.values()), folder / "raw"}:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
    wanted = Wanted(recipe.dataset, splits_of(recipe), recipe.seed, folder / "raw")
    read, groups = read_splits(recipe, wanted, paths, update, spread)
    judge(recipe.dataset, read)
    found = _kept(recipe, read, groups, paths)
    paths["test"].touch()
    shutil.rmtree(folder / "raw")
    with ThreadPoolExecutor(1) as digests:  # which take a core without Python's lock
        scanned = [digests.submit(scan_folder, name, folder / name) for name in ("train_set", "test_set")]
        lines = [*skipped(read, folder), *_of_recipe(recipe, read, found, groups)]
        lines += remarks(found, paths, used_columns(recipe))
        artifacts = [each.result() for each in scanned]
    metrics = _metrics(read, found, artifacts, time.monotonic() - begin)
    return DataParts(artifacts, metrics | ({"remarks": lines} if lines else {}), lines)


def _kept(
    recipe: Recipe, read: Mapping[str, Collected], groups: Groups | None, paths: Mapping[str, Path]
) -> dict[str, Collected]:
    """What is kept of the rows after splits are held out and limits are met."""
    dataset, found = recipe.dataset, dict(read)
    if dataset.split and groups:
        found |= hold_out(dataset.split, groups, read["train"], paths)
        _check_needed(recipe, found)
    if recipe.train.stage == "kto" and found.get("test") and found["test"].num_rows:
        found["test"] = only_good(paths["test"], "test", found["test"])
        _check_compared(recipe, found["test"])
    for split, each in list(found.items()):
        limit = getattr(dataset.max_rows, split)
        if draws(recipe) and limit is not None and each.num_rows > limit:
            found[split] = sample(paths[split], split, limit, recipe.seed, each)
    return found


def _check_needed(recipe: Recipe, found: Mapping[str, Collected]) -> None:
    """Raise RunnerError when a stage needs rows of a split that the column of splits names nowhere."""
    rule = recipe.dataset.split
    asking: list[str] = [name for name in ("infer", "query") if name in recipe.pipeline]
    needs = {"test": asking, "val": ["train"] if recipe.train.args.get("eval_dataset") == "val" else []}
    for split, stages in needs.items():
        if rule is not None and rule.column is not None and stages and split not in found:
            raise RunnerError(
                f"dataset.split.column={rule.column} names no row's split {split}, whose rows {stages[0]} needs",
                f"Say in dataset.split.values which of its values mean {split}.",
            )


def _check_compared(recipe: Recipe, test: Collected) -> None:
    """Raise RunnerError when predictions are asked for and no row's answer is good."""
    asking = next((name for name in ("infer", "query") if name in recipe.pipeline), "")
    if asking and not test.num_rows:
        bad = count_text(test.num_bad_answers, "answer")
        raise RunnerError(
            f"test: all {bad} are labelled bad, and {asking} compares with good ones",
            "Name rows with good answers as this split, or leave infer, evaluate and query out of the pipeline.",
        )


def _of_recipe(
    recipe: Recipe, read: Mapping[str, Collected], found: Mapping[str, Collected], groups: Groups | None
) -> Iterator[str]:
    """Remarks on what the rows are in the light of the recipe."""
    yield from _left_out(recipe, read, groups)
    if recipe.dataset.split and groups:
        yield from fewer_than_asked(recipe.dataset.split, found)
    there = {column for each in read.values() for column in each.columns}
    for name in TEMPLATES:
        for column in there.intersection(braced(getattr(recipe.dataset.prompt, name) or "")):
            yield (
                f"dataset.prompt.{name} has {{{{{column}}}}}, a text in braces and not the column {column}: for that "
                "write one brace on each side"
            )


def _left_out(recipe: Recipe, read: Mapping[str, Collected], groups: Groups | None) -> list[str]:
    count = groups.named.count(NAMES.index(NONE)) if groups else 0
    rule = recipe.dataset.split
    if not count or rule is None:
        return []
    return [f"left out {count:,} of {count_text(read['train'].num_rows, 'row')}, whose {rule.column!r} means none"]


def used_columns(recipe: Recipe) -> set[str]:
    """Columns that something of the recipe reads, and those that have a meaning by their names."""
    prompt, split = recipe.dataset.prompt, recipe.dataset.split
    named = prompt_columns(prompt) | ({split.by, split.stratify or "", split.column or ""} if split else set())
    usual = {"pt": ("text",), "dpo": (*CHOSEN, *REJECTED), "rm": (*CHOSEN, *REJECTED), "kto": LABELS}
    extras = (*SYSTEMS, "tools", "functions", *MEDIA) if prompt.conversations is not None else ()
    whole = {name.partition(".")[0] for name in named}
    return {*named, *whole, *usual.get(recipe.train.stage, ()), *extras, "id"}


def _metrics(
    read: Mapping[str, Collected], found: Mapping[str, Collected], artifacts: list[Artifact], elapsed_s: float
) -> dict[str, Any]:
    return {
        "rows": {split: each.num_rows for split, each in found.items()},
        "skipped": {split: each.num_bad for split, each in read.items()},
        "chars": {split: lengths(each) for split, each in found.items()},
        "rows_per_s": round(sum(each.num_rows for each in read.values()) / max(elapsed_s, 1e-3)),
        "bytes": sum(artifact.size_bytes for artifact in artifacts),
    }
