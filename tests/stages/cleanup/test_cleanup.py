"""What is taken down and deleted, and what is left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.errors import RunnerError
from runner.pipeline.context import RunContext
from runner.recipe.load import compose, to_recipe
from runner.storage.artifact import Artifact, scan_folder
from runner.storage.store import open_store
from stages.cleanup.stage import Cleanup
from stages.publish.stage import EARLIER

Make = Callable[..., RunContext]


class Quiet:
    """A Ray session that shows no progress."""

    def progress(self, stage: str) -> Any:
        return self

    def update(self, *args: Any, **figures: Any) -> None:
        pass


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A context of cleanup in `tmp_path/run`, with the artifacts of its manifest."""
    (tmp_path / "run").mkdir()
    provided = {"train": ("trained_weights", "training_log"), "publish": ("adapter",), "ingest": ("model",)}
    monkeypatch.setattr(
        "stages.cleanup.stage.load_stage", lambda name: type(name, (), {"provides": provided.get(name, ())})()
    )

    def make_context(*overrides: str, artifacts: tuple[Artifact, ...] = ()) -> RunContext:
        store = f"storage.artifacts={tmp_path}/store"
        recipe = to_recipe(compose(["recipe=viggo_quickstart", store, *overrides]))[0]
        return RunContext(
            recipe=recipe, stage="cleanup", run_id="r", run_dir=tmp_path / "run",
            stage_dir=tmp_path / "run" / "cleanup", fingerprint="f", inputs={},
            ray=Quiet(), manifest_artifacts=lambda: list(artifacts),  # type: ignore[arg-type]
        )  # fmt: skip

    return make_context


def folder_artifact(name: str, folder: Path) -> Artifact:
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "deep" / "b.txt").write_text("b")
    return scan_folder(name, folder)


def test_takes_down_what_was_started_last_first(make: Make) -> None:
    ctx, order = make(), []
    ctx.defer("first", lambda: order.append("first"))
    ctx.defer("second", lambda: order.append("second"))
    result = Cleanup().run(ctx)
    assert order == result.metrics["stopped"] == ["second", "first"]
    assert ctx.deferred == []


def test_one_failure_does_not_stop_the_others_and_is_told(make: Make) -> None:
    ctx, order = make(), []
    ctx.defer("first", lambda: order.append("first"))
    ctx.defer("second", lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    with pytest.raises(RunnerError, match="second: division by zero"):
        Cleanup().run(ctx)
    assert order == ["first"]


def test_keep_alive_leaves_everything_up(make: Make) -> None:
    ctx = make("serve.keep_alive=true")
    ctx.defer("first", lambda: pytest.fail("taken down"))
    assert Cleanup().run(ctx).metrics == {"stopped": [], "deleted": [], "kept": [], "kept_alive": True}
    assert len(ctx.deferred) == 1


def test_deletes_only_the_files_of_the_named_artifact(make: Make, tmp_path: Path) -> None:
    checkpoint = folder_artifact("trained_weights", tmp_path / "run" / "train" / "trained_weights")
    log = folder_artifact("training_log", tmp_path / "run" / "train" / "log")
    (checkpoint.path / "deep" / "stranger.txt").write_text("not in the manifest")
    result = Cleanup().run(make("cleanup.delete=[trained_weights]", artifacts=(checkpoint, log)))
    assert result.metrics["deleted"] == [
        {"name": "trained_weights", "uri": checkpoint.uri, "files": 2, "bytes": 2},
    ]
    assert [path.name for path in checkpoint.path.rglob("*") if path.is_file()] == ["stranger.txt"]
    assert (log.path / "a.txt").exists()


def test_empty_folders_go_with_their_files(make: Make, tmp_path: Path) -> None:
    checkpoint = folder_artifact("trained_weights", tmp_path / "run" / "train" / "trained_weights")
    Cleanup().run(make("cleanup.delete=[trained_weights]", artifacts=(checkpoint,)))
    assert not checkpoint.path.exists()
    assert (tmp_path / "run" / "train").exists()


def test_deletes_a_published_set_from_the_store(make: Make, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    local = folder_artifact("trained_weights", tmp_path / "made")
    adapter = store.publish(local, "adapters/base/a-1", "adapter")
    other = store.publish(local, "adapters/base/a-2", "adapter")
    Cleanup().run(make("cleanup.delete=[adapter]", artifacts=(adapter,)))
    assert store.exists("adapters/base/a-1") is None
    assert store.exists("adapters/base/a-2") == other


def test_a_set_that_an_earlier_run_had_published_stays_in_the_store(make: Make, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    adapter = store.publish(folder_artifact("adapter", tmp_path / "local"), "adapters/base/a-1", "adapter")
    again = adapter.model_copy(update={"meta": {EARLIER: True}})
    result = Cleanup().run(make("cleanup.delete=[adapter]", artifacts=(again,)))
    assert result.metrics["kept"] == [{"name": "adapter", "why": "published by an earlier run, too"}]
    assert store.exists("adapters/base/a-1") == adapter


def test_what_an_earlier_run_made_is_kept_and_named(make: Make) -> None:
    result = Cleanup().run(make("cleanup.delete=[trained_weights]"))
    assert result.metrics["kept"] == [{"name": "trained_weights", "why": "not made by this run"}]
    assert "kept trained_weights" in result.note


def test_refuses_a_name_that_nothing_makes(make: Make) -> None:
    with pytest.raises(RunnerError, match="'checkpont'") as caught:
        Cleanup().run(make("cleanup.delete=[checkpont]"))
    assert "trained_weights" in caught.value.hint


def test_refuses_a_folder_outside_of_the_run_and_deletes_nothing(make: Make, tmp_path: Path) -> None:
    model = folder_artifact("model", tmp_path / "cache" / "model")
    checkpoint = folder_artifact("trained_weights", tmp_path / "run" / "trained_weights")
    with pytest.raises(RunnerError, match="neither in this run's folder"):
        Cleanup().run(make("cleanup.delete=[trained_weights,model]", artifacts=(model, checkpoint)))
    assert (model.path / "a.txt").exists()
    assert (checkpoint.path / "a.txt").exists()


@pytest.mark.parametrize("path", ["../../victim.txt", "/etc/hostname"])
def test_refuses_a_manifest_whose_paths_lead_out(make: Make, tmp_path: Path, path: str) -> None:
    good = folder_artifact("trained_weights", tmp_path / "run" / "trained_weights")
    (tmp_path / "victim.txt").write_text("v")
    bad = good.model_copy(update={"files": [good.files[0].model_copy(update={"path": path})]})
    with pytest.raises(RunnerError, match="not a legal path"):
        Cleanup().run(make("cleanup.delete=[trained_weights]", artifacts=(bad,)))
    assert (tmp_path / "victim.txt").exists()


def test_refuses_to_follow_a_link_out_of_the_folder(make: Make, tmp_path: Path) -> None:
    checkpoint = folder_artifact("trained_weights", tmp_path / "run" / "trained_weights")
    outside = folder_artifact("other", tmp_path / "outside")
    for path in (checkpoint.path / "deep").iterdir():
        path.unlink()
    (checkpoint.path / "deep").rmdir()
    (checkpoint.path / "deep").symlink_to(outside.path / "deep")
    with pytest.raises(RunnerError, match="through a link"):
        Cleanup().run(make("cleanup.delete=[trained_weights]", artifacts=(checkpoint,)))
    assert (outside.path / "deep" / "b.txt").exists()


def test_a_service_that_stays_up_keeps_its_adapter(make: Make) -> None:
    with pytest.raises(RunnerError, match="still needs"):
        Cleanup().run(make("serve.keep_alive=true", "cleanup.delete=[adapter]"))
