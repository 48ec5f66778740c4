"""How many rows there are, before and after they have been read: what plans count with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from runner.pipeline.estimates.figure import Known
from runner.pipeline.estimates.past import newest_record
from runner.pipeline.manifest import StageRecord
from stages.data.example import BadRowError
from stages.data.generated import grammar, named
from stages.data.look import LIGHT, light_rows
from stages.data.readers import read_file
from stages.data.readers.sniff import Form, sniff
from stages.data.sources.names import folder_of
from stages.data.split_column import split_of_row
from stages.sections.dataset import HeldOut
from stages.sections.recipe import Recipe

_MOST_COUNTED_BYTES, _MOST_READ_BYTES = 64 << 20, 8 << 20
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class RowFacts:
    """Rows of the splits; None for one that is not known. basis: where the numbers are from, or why there are none."""

    counts: dict[str, int | None]
    basis: str


def known_rows(known: Known[Recipe]) -> RowFacts:
    """Facts of the rows, also from the newest ingest of the same ones."""
    return known.once(_rows)


def _rows(known: Known[Recipe]) -> RowFacts:
    return row_facts(known.recipe, newest_record(known, "ingest", "dataset."))


def row_facts(recipe: Recipe, ingested: StageRecord | None) -> RowFacts:
    """ingested: the newest record of an ingest of these very rows, if there is one."""
    dataset = recipe.dataset
    if ingested is not None:
        return RowFacts({**dict.fromkeys(SPLITS, 0), **ingested.metrics["rows"]}, f"run {ingested.origin_run}")
    if dataset.source.startswith("generated://"):
        spec = named.parse_uri(dataset.source, recipe.seed)
        found: dict[str, int | None] = {split: spec.num_rows(split) for split in grammar.SPLITS}
        return RowFacts(_limited(found, recipe), "dataset.source")
    if "://" in dataset.source:
        return RowFacts(dict.fromkeys(SPLITS), f"{dataset.source} has not been read yet")
    files = {split: name for split, name in dataset.files.model_dump().items() if name is not None}
    folder = Path(folder_of(dataset.source)).expanduser()
    counted = {split: _count_rows(folder, name) for split, name in files.items()}
    rule = dataset.split
    if rule is not None and rule.column is not None and counted.get("train") is not None:
        counted |= _by_column(recipe, rule)
    held_out = _held_out(counted, rule) if rule is not None and rule.column is None else {}
    basis = f"about, by the rows in {dataset.source}" if held_out else f"lines in {dataset.source}"
    known = RowFacts(_limited({**dict.fromkeys(SPLITS, 0), **counted, **held_out}, recipe), basis)
    if None in known.counts.values():
        return RowFacts(known.counts, f"{dataset.source} has files that are not there or cannot be counted here")
    return known


def _held_out(counts: Mapping[str, int | None], rule: HeldOut) -> dict[str, int | None]:
    """Rows of the splits that are made of the training rows, as far as shares say: rows of a group stay together."""
    whole = counts.get("train")
    shares = {split: share for split, share in (("val", rule.val), ("test", rule.test)) if share is not None}
    if whole is None:
        return dict.fromkeys(("train", *shares))
    taken = {split: round(whole * share) if share < 1 else int(share) for split, share in shares.items()}
    return {**taken, "train": max(whole - sum(taken.values()), 0)}


def _by_column(recipe: Recipe, rule: HeldOut) -> dict[str, int | None]:
    """Rows of the splits that a column names; those that name none are told by ingest."""
    found = Counter[str]()
    for row in light_rows(recipe, "train"):
        with suppress(BadRowError):
            found[split_of_row(rule, row)] += 1
    return {split: found[split] for split in SPLITS}


def _limited(counts: Mapping[str, int | None], recipe: Recipe) -> dict[str, int | None]:
    limits: dict[str, Any] = recipe.dataset.max_rows.model_dump()
    return {
        split: min(n for n in (count, limits[split]) if n is not None) if count is not None else None
        for split, count in counts.items()
    }


def _count_rows(folder: Path, names: str | list[str]) -> int | None:
    """Rows of one file that Python reads by itself, or whose footer has them; None for others, for those that are not
    there, and large ones."""
    if not isinstance(names, str):
        return None
    path = folder / names
    try:
        size, form = path.stat().st_size, sniff(path, names)
        if form == Form("jsonl") and size <= _MOST_COUNTED_BYTES:
            with path.open("rb") as file:
                return sum(1 for line in file if line.strip())
        if form.kind in LIGHT and not form.compression and size <= _MOST_READ_BYTES:
            return sum(1 for _ in read_file(path, names))
        return _by_footer(path) if form == Form("parquet") else None
    except (OSError, RunnerError, ImportError, ValueError):
        return None


def _by_footer(path: Path) -> int:
    """Rows of a Parquet file. Raises ValueError for a damaged one, ImportError in an installation without pyarrow."""
    from pyarrow.parquet import read_metadata

    return int(read_metadata(path).num_rows)
