"""Adapters and predictions of other runs: found by the run's id, and only what that run has evaluated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.errors import RunnerError
from runner.pipeline.context import RunContext
from runner.pipeline.manifest import Manifest, StageRecord
from runner.storage.artifact import Artifact, scan_folder
from runner.storage.store import open_store
from stages.evaluate.scores import Scores, Verdict
from stages.models.weights import Adapter, found_weights
from stages.sections.recipe import Recipe
from stages.serve.other_runs import predictions_of_run, run_folder, same_rows, served_runs
from stages.serve.stage import with_capacity

MODEL = Artifact(name="model", uri="/model", sha256="m" * 64)


class Runs:
    """Writes runs with an adapter each into one root and one store."""

    def __init__(self, tmp_path: Path) -> None:
        self.root, self.store = tmp_path / "runs", open_store(str(tmp_path / "store" / "base"))

    def add(self, run_id: str, rank: int = 8, **changes: Any) -> Artifact:
        folder = self.root / "any" / run_id
        made = folder / "trained_weights"
        made.mkdir(parents=True)
        (made / "adapter_model.safetensors").write_text(run_id)
        (made / "adapter_config.json").write_text(json.dumps({"r": rank}))
        adapter = self.store.publish(scan_folder("adapter", made), run_id, "adapter")
        adapter = adapter.model_copy(
            update={"name": "adapter", "meta": found_weights(adapter, "org/model").meta() | {"adapter_id": run_id}}
        )
        scores = folder / "scores"
        scores.mkdir()
        scored, verdict = changes.get("scored", adapter.sha256), Verdict(changes.get("passed", True), ("exact_match",))
        judged = Scores({"tuned": {}}, ["exact_match"], 0.95, adapter_sha256=scored, verdict=verdict)
        (scores / "scores.json").write_text(json.dumps(judged.as_dict()))
        rows = folder / "rows"
        rows.mkdir()
        test_set = Artifact(name="test_set", uri=str(rows), sha256=changes.get("test_set", "t" * 64))
        model = MODEL.model_copy(update={"sha256": changes.get("model", MODEL.sha256)})
        artifacts = [model, test_set, adapter, scan_folder("scores", scores), scan_folder("predictions", rows)]
        record = StageRecord(name="all", status="done", artifacts=artifacts)
        status = changes.get("status", "done")
        Manifest(run_id=run_id, recipe="any", status=status, created_at=1.0, stages=[record]).save(folder)
        return adapter

    def context(self, recipe: Recipe, *runs: str) -> RunContext:
        storage = recipe.storage.model_copy(update={"root": str(self.root)})
        serve = recipe.serve.model_copy(update={"runs": list(runs)})
        recipe = recipe.model_copy(update={"storage": storage, "serve": serve})
        return RunContext(recipe, "serve", "r", self.root, self.root, "f", {"model": MODEL}, None)  # type: ignore[arg-type]


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_adapters_of_other_runs_are_named_and_ranked(runs: Runs, quickstart: Recipe) -> None:
    own = runs.add("own")
    runs.add("two", rank=16)
    runs.add("three", rank=4)
    context = runs.context(quickstart, "two", "own", "three", "two")
    found, base = served_runs(context, Adapter.of(own)), quickstart.serve.model_id
    assert [(each.run_id, each.model, each.rank) for each in found] == [
        ("two", f"{base}:two", 16), ("three", f"{base}:three", 4)
    ]  # fmt: skip
    recipe = with_capacity(context.recipe, found)
    assert recipe.serve.max_adapters_per_replica == 3
    assert recipe.serve.engine_kwargs["max_lora_rank"] == 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scored": "0" * 64}, "is not the one that it evaluated"),
        ({"scored": None}, "is not the one that it evaluated"),
        ({"model": "x" * 64}, "trained on another base model"),
        ({"passed": False}, "the gate refused what the run other"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    runs: Runs, quickstart: Recipe, changes: dict[str, Any], message: str
) -> None:
    own = runs.add("own")
    runs.add("other", **changes)
    with pytest.raises(RunnerError, match=message):
        served_runs(runs.context(quickstart, "other"), Adapter.of(own))


def test_a_swapped_adapter_in_the_store_is_refused(runs: Runs, quickstart: Recipe, tmp_path: Path) -> None:
    own, other = runs.add("own"), runs.add("other")
    swapped = tmp_path / "swapped"
    swapped.mkdir()
    (swapped / "adapter_model.safetensors").write_text("other weights")
    (swapped / "adapter_config.json").write_text('{"r": 8}')
    runs.store.delete_set(other)
    runs.store.publish(scan_folder("adapter", swapped), "other", "adapter")
    with pytest.raises(RunnerError, match=r"holds another adapter .* than the run other \(serve\.runs\) published"):
        served_runs(runs.context(quickstart, "other"), Adapter.of(own))


def test_a_rank_that_the_engine_has_no_slots_for_is_refused(runs: Runs, quickstart: Recipe) -> None:
    own = runs.add("own")
    runs.add("large", rank=64)
    found = served_runs(runs.context(quickstart, "large"), Adapter.of(own))
    serve = quickstart.serve.model_copy(update={"engine_kwargs": {"max_lora_rank": 8}})
    with pytest.raises(RunnerError, match=r"has rank 64, engine_kwargs\.max_lora_rank=8") as refusal:
        with_capacity(quickstart.model_copy(update={"serve": serve}), found)
    assert refusal.value.hint == "Set serve.engine_kwargs.max_lora_rank=64."


def test_a_run_that_is_not_there_is_named(runs: Runs, quickstart: Recipe) -> None:
    recipe = runs.context(quickstart).recipe
    with pytest.raises(RunnerError, match=r"evaluate\.compare_run names the run 'gone', which is not below"):
        predictions_of_run(recipe, "gone", "evaluate.compare_run")
    Manifest(run_id="early", recipe="any").save(runs.root / "any" / "early")
    with pytest.raises(RunnerError, match=r"the run 'early', which has no predictions"):
        predictions_of_run(recipe, "early", "evaluate.compare_run")


def test_a_name_that_means_another_run_later_is_refused_with_the_id(runs: Runs, quickstart: Recipe) -> None:
    runs.add("one")
    with pytest.raises(RunnerError, match=r"train\.start_from takes the id of a run, and latest is another") as found:
        run_folder(runs.context(quickstart).recipe, "latest", "train.start_from")
    assert found.value.hint == "Write train.start_from=one."
    with pytest.raises(RunnerError, match="no finished job of a sweep for @best"):
        run_folder(runs.context(quickstart).recipe, "@best", "train.start_from")


def test_predictions_are_compared_only_over_the_same_test_set(runs: Runs, quickstart: Recipe) -> None:
    runs.add("one")
    recipe = runs.context(quickstart).recipe
    same = Artifact(name="test_set", uri="/t", sha256="t" * 64)
    assert same_rows(recipe, "one", same) is not None
    assert same_rows(recipe, "one", same.model_copy(update={"sha256": "u" * 64})) is None
