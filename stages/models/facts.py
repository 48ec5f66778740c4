"""What is known of the model and the rows before anything runs, and where it is known from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runner.errors import RunnerError
from runner.pipeline.manifest import StageRecord
from stages.models import gguf
from stages.models.architecture import DTYPE_BYTES, num_params, read_architecture, stored_weights
from stages.models.obtain import check_model_folder
from stages.sections.model import Architecture, is_local
from stages.sections.recipe import Recipe


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


def figures(recipe: Recipe) -> tuple[Architecture, int] | None:
    """Architecture and number of parameters, for rules; None where they are not known."""
    published = recipe.model.architecture
    if published is not None and published.of == recipe.model.source:
        return published, num_params(published)
    found = model_facts(recipe, None)
    return None if found.architecture is None or found.num_params is None else (found.architecture, found.num_params)


def _folders(recipe: Recipe, ingested: StageRecord | None) -> Iterator[Path]:
    """Folders of this machine that hold the model."""
    source, cache = recipe.model.source, Path(recipe.storage.cache).expanduser()
    if is_local(source):
        candidates = [Path(source).expanduser()]
    elif source.startswith("package://"):
        distribution, _, name = source.removeprefix("package://").partition("/")
        try:
            file = gguf.find_packaged_file(distribution, name, gguf.ENVIRONMENT)
            candidates = [cache / "gguf" / gguf.cache_name(distribution, file, gguf.ENVIRONMENT)]
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
