"""What other runs below the same `storage.root` have made: predictions to compare with, adapters to serve beside."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from runner.errors import RunnerError
from runner.pipeline.context import RunContext
from runner.pipeline.manifest import Manifest
from runner.pipeline.runs import run_of_id
from runner.recipe.schema import Recipe
from runner.storage.artifact import Artifact
from stages.models.adapter import CONFIG, adapter_name, find_adapter, largest_rank


@dataclass(frozen=True)
class ServedRun:
    """Another run's adapter at the endpoint. model: the name that requests use. rank: of its largest matrices."""

    run_id: str
    model: str
    adapter: Artifact
    rank: int


def run_folder(recipe: Recipe, run_id: str, key: str) -> Path:
    """The run's folder. key: the recipe's key that names it. Raises RunnerError when there is no such run."""
    root = recipe.storage.runs
    try:
        return run_of_id(root, run_id)
    except RunnerError as error:
        raise RunnerError(f"{key} names the run {run_id!r}, which is not below {root}: {error}", error.hint) from error


def predictions_of_run(recipe: Recipe, run_id: str, key: str) -> Artifact:
    """The predictions of another run. Raises RunnerError when there is no such run, or it has predicted nothing."""
    artifact = Manifest.load(run_folder(recipe, run_id, key)).artifact("predictions")
    if artifact is None:
        raise RunnerError(f"{key} names the run {run_id!r}, which has no predictions", "Name a run that ran infer.")
    return artifact


def same_rows(recipe: Recipe, run_id: str, test_set: Artifact) -> Artifact | None:
    """The predictions of another run when they are of this test set, else None."""
    manifest = Manifest.load(run_folder(recipe, run_id, "serve.runs"))
    theirs = manifest.artifact("test_set")
    return manifest.artifact("predictions") if theirs and theirs.sha256 == test_set.sha256 else None


def served_runs(ctx: RunContext, own: Artifact | None) -> list[ServedRun]:
    """The adapters of `serve.runs`, each by digest the one that its run has scored, on this run's base model.

    own: this run's adapter; one that equals it is left out. Raises RunnerError naming the run that does not fit.
    """
    found: dict[str, ServedRun] = {}
    for run_id in ctx.recipe.serve.runs:
        adapter = _checked_adapter(ctx, run_id, own)
        if own is None or adapter.sha256 != own.sha256:
            model = adapter_name(ctx.recipe.serve.model_id, adapter.meta["adapter_id"])
            found.setdefault(adapter.sha256, ServedRun(run_id, model, adapter, _rank(ctx, adapter)))
    return list(found.values())


def _checked_adapter(ctx: RunContext, run_id: str, own: Artifact | None) -> Artifact:
    manifest = Manifest.load(run_folder(ctx.recipe, run_id, "serve.runs"))
    adapter, scores, model = (manifest.artifact(name) for name in ("adapter", "scores", "model"))
    if adapter is None:
        raise RunnerError(f"serve.runs: the run {run_id} has published no adapter", "Leave it out.")
    if manifest.status == "gate_refused":
        raise RunnerError(f"serve.runs: the gate of the run {run_id} said no to its adapter", "Leave it out.")
    if model is None or model.sha256 != ctx.input("model").sha256:
        raise RunnerError(f"serve.runs: the run {run_id} trained on another base model", "Leave it out.")
    scored = None
    if scores is not None:
        scored = json.loads((scores.path / "scores.json").read_text(encoding="utf-8")).get("adapter_sha256")
    if scored != adapter.sha256:
        raise RunnerError(
            f"serve.runs: the adapter of the run {run_id} (sha256 {adapter.sha256[:12]}) is not one that it evaluated",
            "Run its evaluate stage, or leave it out.",
        )
    if own is not None and store_of(adapter) != store_of(own):
        raise RunnerError(
            f"serve.runs: the adapter of the run {run_id} is in {store_of(adapter)}, this one's in {store_of(own)}",
            "Publish both into one store (storage.artifacts) under one serve.model_id.",
        )
    from runner.storage.store import open_store

    store = open_store(store_of(adapter), endpoint_url=ctx.recipe.storage.endpoint_url)
    if find_adapter(store, adapter.meta["adapter_id"]).sha256 != adapter.sha256:
        raise RunnerError(f"serve.runs: {adapter.uri} holds another adapter than the run {run_id} published")
    return adapter


def store_of(adapter: Artifact) -> str:
    """The folder of adapters in the store that the adapter is in."""
    return adapter.uri.rstrip("/").rpartition("/")[0]


def _rank(ctx: RunContext, adapter: Artifact) -> int:
    from runner.storage.store import open_store

    store = open_store(store_of(adapter), endpoint_url=ctx.recipe.storage.endpoint_url)
    return largest_rank(store.read_bytes(f"{adapter.meta['adapter_id']}/{CONFIG}"))
