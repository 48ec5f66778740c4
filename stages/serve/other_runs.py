"""What other runs below the same `storage.root` have made: predictions to compare with, adapters to serve too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runner.errors import RunnerError
from runner.pipeline.context import RunContext
from runner.pipeline.manifest import Manifest
from runner.pipeline.runs import BEST, LATEST, find_run, run_of_id
from runner.storage.artifact import Artifact
from runner.storage.verify import Digests, damage
from stages.models.weights import Adapter
from stages.sections.recipe import Recipe
from stages.serve.fit import fit_to_serve


@dataclass(frozen=True)
class ServedRun:
    """Another run's adapter at the endpoint. model: the name that requests use."""

    run_id: str
    model: str
    adapter: Adapter

    @property
    def rank(self) -> int:
        """The largest of its matrices."""
        return self.adapter.rank


def run_folder(recipe: Recipe, run_id: str, key: str) -> Path:
    """The run's folder. key: the recipe's key that names it. Raises RunnerError when there is no such run."""
    root = recipe.storage.runs
    if run_id == LATEST or run_id.endswith(BEST):
        meant = find_run(root, run_id).name
        raise RunnerError(f"{key} takes the id of a run, and {run_id} is another one later", f"Write {key}={meant}.")
    try:
        return run_of_id(root, run_id)
    except RunnerError as error:
        raise RunnerError(f"{key} names the run {run_id!r}, which is not below {root}: {error}", error.hint) from error


def predictions_of_run(recipe: Recipe, run_id: str, key: str) -> Artifact:
    """The predictions of another run. Raises RunnerError when there is no such run, or it has predicted nothing."""
    artifact = manifest_of(recipe, run_id, key).artifact("predictions")
    if artifact is None:
        raise RunnerError(f"{key} names the run {run_id!r}, which has no predictions", "Name a run that ran infer.")
    return artifact


def whole(artifact: Artifact, run_id: str, key: str) -> Artifact:
    """The artifact of another run. key: that names the run. Raises RunnerError when its files are damaged."""
    if why := damage(artifact, Digests(None)):
        raise RunnerError(f"{key} names the run {run_id!r}, whose {why}", "Run that recipe again, or name another run.")
    return artifact


def manifest_of(recipe: Recipe, run_id: str, key: str) -> Manifest:
    """The manifest of the run. Raises RunnerError when there is none, or its folder holds that of another run."""
    return manifest_in(run_folder(recipe, run_id, key), run_id, key)


def manifest_in(folder: Path, run_id: str, key: str) -> Manifest:
    """The manifest in the run's folder. Raises RunnerError when it is that of another run."""
    manifest = Manifest.load(folder)
    if manifest.run_id != folder.name:
        raise RunnerError(
            f"{key} names the run {run_id!r}, whose folder {folder} holds the manifest of {manifest.run_id}",
            "Restore that folder, or name another run.",
        )
    return manifest


def same_rows(recipe: Recipe, run_id: str, test_set: Artifact) -> Artifact | None:
    """The predictions of another run when they are of this test set, else None."""
    manifest = manifest_of(recipe, run_id, "serve.runs")
    theirs, found = manifest.artifact("test_set"), manifest.artifact("predictions")
    return whole(found, run_id, "serve.runs") if found and theirs and theirs.sha256 == test_set.sha256 else None


def served_runs(ctx: RunContext[Recipe], own: Adapter | None) -> list[ServedRun]:
    """The adapters of `serve.runs`, each fit to be served (`stages.serve.fit`), on this run's base model.

    own: this run's adapter; one that equals it is left out. Raises RunnerError naming the run that does not fit.
    """
    found: dict[str, ServedRun] = {}
    for run_id in ctx.recipe.serve.runs:
        adapter = _checked_adapter(ctx, run_id, own)
        if own is None or adapter.sha256 != own.sha256:
            found.setdefault(adapter.sha256, ServedRun(run_id, adapter.name_at(ctx.recipe.serve.model_id), adapter))
    return list(found.values())


def _checked_adapter(ctx: RunContext[Recipe], run_id: str, own: Adapter | None) -> Adapter:
    manifest = manifest_of(ctx.recipe, run_id, "serve.runs")
    published, scores, model = (manifest.artifact(name) for name in ("adapter", "scores", "model"))
    if published is None:
        raise RunnerError(f"serve.runs: the run {run_id} has published no adapter", "Leave it out.")
    if scores is None:
        raise RunnerError(
            f"serve.runs: the run {run_id} has not evaluated its adapter", "Run its evaluate stage, or leave it out."
        )
    scores = whole(scores, run_id, "serve.runs")
    if model is None or model.sha256 != ctx.input("model").sha256:
        raise RunnerError(f"serve.runs: the run {run_id} trained on another base model", "Leave it out.")
    adapter = fit_to_serve(published, scores, ctx.recipe.storage.endpoint_url, whose=f"the run {run_id} (serve.runs)")
    assert adapter is not None
    if own is not None and adapter.store != own.store:
        raise RunnerError(
            f"serve.runs: the adapter of the run {run_id} is in {adapter.store}, this one's in {own.store}",
            "Publish both into one store (storage.artifacts) under one serve.model_id.",
        )
    return adapter
