"""`tracking: mlflow`: a run's figures, artifacts and recipe as an MLflow run, at the end of the pipeline."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from runner.pipeline.manifest import Manifest, StageRecord
from runner.pipeline.optional import HasFigures
from runner.pipeline.registry import loadable
from runner.recipe.load import flatten
from runner.recipe.machine import pip_install
from runner.storage.atomic import read_state

_MAX_PARAM_CHARS = 500
_FOLDER = "mlruns"


def track(folder: Path, root: Path) -> str:
    """Log the run of that folder to MLflow, and return the tracking server's URI.

    The experiment is the recipe's name, the run's name the run id; a run that is logged again is updated. The server is
    the one of MLFLOW_TRACKING_URI; without it a folder `mlruns` below `storage.root`.
    Raises RunnerError when MLflow is not installed.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or (root / _FOLDER).as_uri()
    if uri.startswith("file:"):
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 requires that this is confirmed
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise RunnerError(f"tracking=mlflow: {error}", pip_install("mlflow-skinny")) from error
    manifest = Manifest.load(folder)
    recipe = {key: value for key, value in read_state(folder / "recipe.json").items() if key != "self_sha256"}
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(manifest.recipe)
    experiment = found.experiment_id if found else client.create_experiment(manifest.recipe)
    run_id = _run_of(client, experiment, manifest.run_id)
    for name, value in params(recipe):
        client.log_param(run_id, name, value)
    for name, number in metrics(manifest):
        client.log_metric(run_id, name, number)
    for record in manifest.stages:
        for artifact in record.artifacts:
            client.set_tag(run_id, f"artifact.{artifact.name}.uri", artifact.uri)
            client.set_tag(run_id, f"artifact.{artifact.name}.sha256", artifact.sha256)
    for name in ("recipe.json", "summary.json", "report.html", "report.md"):
        if (folder / name).is_file():
            client.log_artifact(run_id, str(folder / name))
    failed = manifest.status in ("failed", "interrupted")
    client.set_terminated(run_id, status="FAILED" if failed else "FINISHED")
    return uri


def _run_of(client: Any, experiment: str, name: str) -> str:
    """Id of the MLflow run for this run: the one that is there already (a continued run), else a new one."""
    tag = "recipe_runner.run_id"
    found = client.search_runs([experiment], filter_string=f"tags.`{tag}` = '{name}'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    return str(client.create_run(experiment, run_name=name, tags={tag: name}).info.run_id)


def params(recipe: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every key of the recipe as MLflow takes it: text of at most 500 characters, letters and `/._- ` in names."""
    for key, value in flatten(recipe):
        name = "".join(char if char.isalnum() or char in "/._- " else "_" for char in key)
        yield name, str(value)[:_MAX_PARAM_CHARS]


def metrics(manifest: Manifest) -> Iterator[tuple[str, float]]:
    """Numbers of the stages: as the stage names them (`HasFigures`), else `<stage>.<figure>`; and `<stage>.wall_s`."""
    for record in manifest.stages:
        yield f"{record.name}.wall_s", record.wall_s
        for name, value in _figures(record).items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield name, float(value)


def _figures(record: StageRecord) -> Mapping[str, Any]:
    stage = next(iter(loadable([record.name])), None)
    if isinstance(stage, HasFigures):
        return stage.figures(record.metrics)
    return {f"{record.name}.{name}": value for name, value in record.metrics.items()}
