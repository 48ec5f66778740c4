"""tracking=mlflow with a local file store."""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from runner.errors import EXIT_DONE
from runner.pipeline.engine import run
from runner.pipeline.manifest import Manifest, StageRecord
from runner.recipe.load import compose, to_recipe
from runner.report.observers import observers
from runner.report.terminal import Report
from runner.report.tracking import metrics, params


def test_scores_and_figures_become_metrics() -> None:
    scores = {"tuned": {"n": 10, "exact_match": 0.5, "exact_match_ci": [0.2, 0.8]}, "gate": {"passed": True}}
    records = [
        StageRecord(name="train", status="done", wall_s=3.0, metrics={"loss_last": 0.1, "resumed_at_step": None}),
        StageRecord(name="evaluate", status="done", metrics=scores),
    ]
    found = dict(metrics(Manifest(run_id="r", recipe="x", stages=records)))
    assert found == {
        "train.wall_s": 3.0, "train.loss_last": 0.1, "evaluate.wall_s": 0.0, "tuned.n": 10.0, "tuned.exact_match": 0.5,
    }  # fmt: skip


def test_parameters_have_names_and_lengths_that_mlflow_takes() -> None:
    found = dict(params({"train": {"args": {"a:b": "x" * 900}}, "seed": 1}))
    assert found == {"train.args.a_b": "x" * 500, "seed": "1"}


def test_a_library_that_is_missing_does_not_fail_the_run(
    fake_stages: Any, local: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    screen = io.StringIO()
    recipe, options = to_recipe(compose(["recipe=viggo_quickstart", "tracking=mlflow", *local]))
    assert run(recipe, options, "", observers(Report(screen)))[0] == EXIT_DONE
    assert "not logged to mlflow" in screen.getvalue()
    assert "pip install mlflow-skinny" in screen.getvalue()


@pytest.mark.e2e
def test_a_run_is_logged_once_with_recipe_and_artifacts(
    fake_stages: Any, local: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own, about its file store and its dependencies
        from mlflow import MlflowClient

        screen = io.StringIO()
        recipe, options = to_recipe(compose(["recipe=viggo_quickstart", "tracking=mlflow", *local]))
        code, summary = run(recipe, options, "", observers(Report(screen)))
        uri = (tmp_path / "runs" / "mlruns").as_uri()
        assert (code, f"logged to mlflow: {uri}" in screen.getvalue()) == (EXIT_DONE, True), screen.getvalue()
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name("viggo_quickstart")
        (logged,) = client.search_runs([experiment.experiment_id])
        assert logged.info.run_name == summary["run_id"]
        assert logged.data.params["train.lora_rank"] == str(recipe.train.lora_rank)
        assert "train.wall_s" in logged.data.metrics
        adapter = next(artifact for artifact in summary["artifacts"] if artifact["name"] == "adapter")
        assert logged.data.tags["artifact.adapter.sha256"] == adapter["sha256"]
        names = {item.path for item in client.list_artifacts(logged.info.run_id)}
        assert {"recipe.json", "report.html", "report.md", "summary.json"} <= names
