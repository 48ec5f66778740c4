"""How many rows there are, before and after they have been read: what plans count with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from runner.pipeline.estimates.figure import Known
from runner.pipeline.estimates.past import newest_record
from runner.pipeline.manifest import StageRecord
from stages.data.generated import grammar
from stages.data.readers.sniff import Form, sniff
from stages.data.sources.names import folder_of
from stages.sections.recipe import Recipe

_MOST_COUNTED_BYTES = 64 << 20
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
        spec = grammar.parse_uri(dataset.source, recipe.seed)
        found: dict[str, int | None] = {split: spec.num_rows(split) for split in grammar.SPLITS}
        return RowFacts(_limited(found, recipe), "dataset.source")
    if "://" in dataset.source or dataset.split is not None:
        return RowFacts(dict.fromkeys(SPLITS), f"{dataset.source} has not been read yet")
    files = {split: name for split, name in dataset.files.model_dump().items() if name is not None}
    folder = Path(folder_of(dataset.source)).expanduser()
    counted = {split: _count_rows(folder, name) for split, name in files.items()}
    known = RowFacts(_limited({**dict.fromkeys(SPLITS, 0), **counted}, recipe), f"lines in {dataset.source}")
    if None in counted.values():
        return RowFacts(known.counts, f"{dataset.source} has files that are not there or cannot be counted here")
    return known


def _limited(counts: Mapping[str, int | None], recipe: Recipe) -> dict[str, int | None]:
    limits: dict[str, Any] = recipe.dataset.max_rows.model_dump()
    return {
        split: min(n for n in (count, limits[split]) if n is not None) if count is not None else None
        for split, count in counts.items()
    }


def _count_rows(folder: Path, names: str | list[str]) -> int | None:
    """Rows of one JSON Lines file; None for any other form, and when it is not there or would take long to read."""
    if not isinstance(names, str):
        return None
    path = folder / names
    try:
        if path.stat().st_size > _MOST_COUNTED_BYTES or sniff(path, names) != Form("jsonl"):
            return None
        with path.open("rb") as file:
            return sum(1 for line in file if line.strip())
    except (OSError, RunnerError):
        return None
