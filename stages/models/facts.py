"""What is known of the model and the rows before anything runs, and where it is known from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from runner.pipeline.manifest import StageRecord
from runner.recipe.schema import Architecture, Recipe
from stages.data.generated import grammar
from stages.models import gguf
from stages.models.architecture import DTYPE_BYTES, num_params, read_architecture, stored_weights
from stages.models.obtain import check_model_folder, is_local

_MOST_COUNTED_BYTES = 64 << 20
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ModelFacts:
    """The base model. basis: where the figures are from, or why there are none.

    folder: where it lies on this machine; None when it must be obtained first.
    """

    architecture: Architecture | None
    num_params: int | None
    weights_bytes: int | None
    folder: Path | None
    basis: str


@dataclass(frozen=True)
class RowFacts:
    """Rows of the splits; None for one that is not known. basis: where the numbers are from, or why there are none."""

    counts: dict[str, int | None]
    basis: str


def model_facts(recipe: Recipe, ingested: StageRecord | None) -> ModelFacts:
    """ingested: the newest record of an ingest of this very model, if there is one."""
    folder = next(_folders(recipe, ingested), None)
    if folder is None:
        return _published(recipe.model.architecture, recipe.model.source)
    found, stored = read_architecture(folder), stored_weights(folder)
    architecture = found if isinstance(found, Architecture) else None
    params = stored[0] if stored else None
    why = found if isinstance(found, str) else "the model's config.json and safetensors"
    if architecture and params is None:
        params, why = num_params(architecture), "the model's config.json"
    return ModelFacts(architecture, params, stored[1] if stored else None, folder, why)


def _folders(recipe: Recipe, ingested: StageRecord | None) -> Iterator[Path]:
    """Folders of this machine that hold the model."""
    source, cache = recipe.model.source, Path(recipe.storage.cache).expanduser()
    if is_local(source):
        candidates = [Path(source).expanduser()]
    elif source.startswith("package://"):
        distribution, _, name = source.removeprefix("package://").partition("/")
        try:
            file = gguf.find_packaged_file(distribution, name)
            candidates = [cache / "gguf" / gguf.cache_name(distribution, file)]
        except (RunnerError, OSError):
            candidates = []
    else:
        snapshots = cache / "hub" / f"models--{source.replace('/', '--')}" / "snapshots"
        candidates = sorted(snapshots.glob(recipe.model.revision or "*"))
    artifacts = ingested.artifacts if ingested else []
    candidates += [Path(each.uri) for each in artifacts if each.name == "model" and "://" not in each.uri]
    for folder in candidates:
        with suppress(RunnerError):
            check_model_folder(folder, source)
            yield folder


def _published(model: Architecture | None, source: str) -> ModelFacts:
    if model is None:
        why = f"{source} is not on this machine, and the recipe has no model.architecture"
        return ModelFacts(None, None, None, None, why)
    if model.of != source:
        why = f"{source} is not on this machine, and model.architecture is of {model.of}"
        return ModelFacts(None, None, None, None, why)
    params = num_params(model)
    return ModelFacts(model, params, params * DTYPE_BYTES[model.dtype], None, "the recipe's model.architecture")


def row_facts(recipe: Recipe, ingested: StageRecord | None) -> RowFacts:
    """ingested: the newest record of an ingest of these very rows, if there is one."""
    dataset = recipe.dataset
    if ingested is not None:
        return RowFacts({**dict.fromkeys(SPLITS, 0), **ingested.metrics["rows"]}, f"run {ingested.origin_run}")
    if dataset.source.startswith("generated://"):
        spec = grammar.parse_uri(dataset.source, recipe.seed)
        found: dict[str, int | None] = {split: spec.num_rows(split) for split in grammar.SPLITS}
        return RowFacts(_limited(found, recipe), "dataset.source")
    if "://" in dataset.source:
        return RowFacts(dict.fromkeys(SPLITS), f"{dataset.source} has not been read yet")
    files = {split: name for split, name in dataset.files.model_dump().items() if name is not None}
    counted = {split: _count_lines(Path(dataset.source).expanduser() / name) for split, name in files.items()}
    known = RowFacts(_limited({**dict.fromkeys(SPLITS, 0), **counted}, recipe), f"lines in {dataset.source}")
    if None in counted.values():
        return RowFacts(known.counts, f"{dataset.source} has files that are not there or too large to count here")
    return known


def _limited(counts: Mapping[str, int | None], recipe: Recipe) -> dict[str, int | None]:
    limits: dict[str, Any] = recipe.dataset.max_rows.model_dump()
    return {
        split: min(n for n in (count, limits[split]) if n is not None) if count is not None else None
        for split, count in counts.items()
    }


def _count_lines(path: Path) -> int | None:
    """Lines with something on them; None when the file is not there or would take too long to read."""
    try:
        if path.stat().st_size > _MOST_COUNTED_BYTES:
            return None
        with path.open("rb") as file:
            return sum(1 for line in file if line.strip())
    except OSError:
        return None
