"""Two machines with folders of their own and one store: what one has made, the other reuses."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from runner.cli.main import main
from runner.errors import EXIT_DONE, RunnerError
from runner.pipeline import shared_cache as sharing
from runner.pipeline.engine import run
from runner.pipeline.manifest import Manifest
from runner.pipeline.shared_cache import SharedCache, is_shared
from runner.pipeline.stage import StageResult
from runner.recipe.load import compose, to_recipe
from runner.report.observers import OnTerminal
from runner.report.terminal import Report
from runner.storage.artifact import scan_folder
from runner.storage.local import FolderBlobs
from runner.storage.store import Store

pytest_plugins = ["tests.moto_s3"]
CACHED = ["ingest", "train", "publish", "infer", "evaluate", "query"]


class Machine:
    """A machine: folders of its own, and the store that all share."""

    def __init__(self, folder: Path, store: str, stages: Any) -> None:
        self.root = folder / "runs"
        self.overrides = [f"storage.root={self.root}", f"storage.cache={folder}/cache", f"storage.artifacts={store}"]
        self.stages = stages
        self.screen = ""

    def run(self, *overrides: str) -> list[str]:
        """Names of the stages that ran."""
        self.stages.runs.clear()
        recipe, options = to_recipe(compose(["recipe=viggo_quickstart", *self.overrides, *overrides]))
        stream = io.StringIO()
        code, summary = run(recipe, options, "python -m runner", [OnTerminal(Report(stream))])
        self.screen = stream.getvalue()
        assert code == EXIT_DONE, self.screen
        self.summary = summary
        return list(self.stages.runs)

    def newest(self) -> Path:
        return (self.root / "latest").resolve()


@pytest.fixture
def machines(fake_stages: Any, tmp_path: Path) -> tuple[Machine, Machine]:
    first, second = (Machine(tmp_path / name, f"{tmp_path}/store", fake_stages) for name in ("first", "second"))
    return first, second


@pytest.fixture
def far(fake_stages: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Machine, Machine]:
    """The same with a store that is not a folder for the runner, like S3."""
    bucket = Store("s3://bucket/results", FolderBlobs(tmp_path / "bucket"))
    monkeypatch.setattr(sharing, "open_store", lambda *args, **options: bucket)
    first, second = (Machine(tmp_path / name, "s3://bucket/results", fake_stages) for name in ("first", "second"))
    return first, second


def test_another_machine_reuses_what_is_in_the_store(machines: tuple[Machine, Machine]) -> None:
    first, second = machines
    assert "train" in first.run()
    assert second.run() == []
    assert first.summary["run_id"] in second.screen
    assert "unchanged since run" in second.screen


def test_a_change_runs_on_the_other_machine_only_what_it_matters_to(far: tuple[Machine, Machine]) -> None:
    first, second = far
    first.run()
    assert second.run("evaluate.metrics=[exact_match]") == ["evaluate", "cleanup"]


def test_only_what_a_running_stage_needs_is_fetched_and_verified(far: tuple[Machine, Machine]) -> None:
    first, second = far
    first.run()
    second.run("evaluate.metrics=[exact_match]")
    fetched = second.newest() / "fetched"
    assert [path.name for path in fetched.iterdir()] == ["predictions"]
    kept = next(artifact for artifact in first.summary["artifacts"] if artifact["name"] == "predictions")
    assert scan_folder("predictions", fetched / "predictions").sha256 == kept["sha256"]


def test_a_machine_obtains_the_model_itself_when_a_stage_needs_it(
    far: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tests.conftest import Ingest

    made = Ingest.run

    def keeps_model_elsewhere(self: Any, ctx: Any) -> StageResult:
        result = made(self, ctx)
        folder = Path(ctx.recipe.storage.cache) / "model"
        shutil.copytree(ctx.stage_dir / "model", folder, dirs_exist_ok=True)
        kept = [artifact for artifact in result.artifacts if artifact.name != "model"]
        return StageResult([*kept, scan_folder("model", folder)])

    monkeypatch.setattr(Ingest, "run", keeps_model_elsewhere)
    first, second = far
    first.run()
    assert not (tmp_path / "bucket" / "cache" / "files" / "model").exists()
    shutil.rmtree(tmp_path / "first")
    assert second.run() == []
    assert second.run("evaluate.metrics=[exact_match]") == ["evaluate", "cleanup"]
    assert second.run("infer.batch_size=3") == ["ingest", "infer", "evaluate", "cleanup"]


def test_a_stage_is_shared_as_soon_as_it_has_finished(machines: tuple[Machine, Machine]) -> None:
    first, second = machines
    first.stages.fail.add("infer")
    with pytest.raises(AssertionError):
        first.run()
    first.stages.fail.clear()
    assert second.run() == ["infer", "evaluate", "serve", "query", "cleanup"]
    assert first.run() == []


def test_a_run_from_before_sharing_is_shared_when_it_is_reused(machines: tuple[Machine, Machine]) -> None:
    first, second = machines
    first.run("storage.share_cache=false")
    assert "train" in second.run("stop_after=train")
    assert first.run() == []
    shutil.rmtree(second.root)
    assert second.run() == []


def test_the_store_is_asked_once_for_what_is_known_to_be_there(
    machines: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = machines
    first.run()
    assert all(record.shared for record in Manifest.load(first.newest()).stages if record.name in CACHED)
    monkeypatch.setattr(Store, "exists", lambda self, key: pytest.fail(f"asked for {key}"))
    assert first.run() == []


def test_a_damaged_record_is_named_and_the_stage_runs(machines: tuple[Machine, Machine], tmp_path: Path) -> None:
    first, second = machines
    first.run()
    (record,) = (tmp_path / "store" / "cache" / "train").glob("*/record.json")
    record.write_text(record.read_text().replace("trained_weights", "trained_wights"))
    assert "train" in second.run()
    assert f"{record} is damaged" in second.screen


def test_a_damaged_artifact_is_not_reused(machines: tuple[Machine, Machine], tmp_path: Path) -> None:
    first, second = machines
    first.run()
    (kept,) = (tmp_path / "store" / "cache" / "files" / "predictions").glob("*/content.json")
    kept.write_text("{}")
    ran = second.run("evaluate.metrics=[exact_match]")
    assert ran[:2] == ["infer", "evaluate"]
    assert "predictions is damaged" in second.screen


def test_a_fetched_file_that_is_damaged_fails_the_stage(far: tuple[Machine, Machine], tmp_path: Path) -> None:
    first, second = far
    first.run()
    (kept,) = (tmp_path / "bucket" / "cache" / "files" / "predictions").glob("*/content.json")
    kept.write_text(kept.read_text().replace("a", "b", 1))
    with pytest.raises(AssertionError, match="is damaged"):
        second.run("evaluate.metrics=[exact_match]")


def test_a_record_whose_artifacts_are_gone_is_not_used(machines: tuple[Machine, Machine], tmp_path: Path) -> None:
    first, second = machines
    first.run()
    shutil.rmtree(tmp_path / "store" / "cache" / "files" / "trained_weights")
    assert second.run("stop_after=train") == ["train"]


def test_a_store_that_does_not_answer_stops_nothing(
    far: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **options: Any) -> Store:
        raise RunnerError("no bucket answers")

    monkeypatch.setattr(sharing, "open_store", refuse)
    first, _ = far
    assert "train" in first.run()
    assert "results in s3://bucket/results are not used: no bucket answers" in first.screen
    assert "the result of train is not shared: no bucket answers" in first.screen


def test_what_cleanup_deletes_is_not_kept_in_the_store(machines: tuple[Machine, Machine], tmp_path: Path) -> None:
    first, second = machines
    first.run("cleanup.delete=[trained_weights]")
    assert not (tmp_path / "store" / "cache" / "files" / "trained_weights").exists()
    assert second.run("cleanup.delete=[trained_weights]") == []


@pytest.mark.parametrize("uri", ["s3://other/bucket", "store://../../etc", "store:///etc"])
def test_a_record_that_leads_out_of_the_store_is_refused(
    uri: str, machines: tuple[Machine, Machine], tmp_path: Path
) -> None:
    first, second = machines
    first.run()
    store = Store(str(tmp_path / "store"), FolderBlobs(tmp_path / "store"))
    (key,) = (path.parent.name for path in (tmp_path / "store" / "cache" / "train").glob("*/record.json"))
    values = json.loads(store.read_bytes(f"cache/train/{key}/record.json"))
    shutil.rmtree(tmp_path / "store" / "cache" / "train")
    values["artifacts"][0]["uri"] = uri
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "record.json").write_text(json.dumps(values))
    store.publish(scan_folder("record", tmp_path / "new"), f"cache/train/{key}", "record")
    assert "train" in second.run()
    assert "are not used" in second.screen


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["storage.root=/a", "storage.artifacts=/a/artifacts"], False),
        (["storage.root=/a", "storage.artifacts=/b"], True),
        (["storage.root=/a", "storage.artifacts=s3://bucket/x"], True),
        (["storage.root=/a", "storage.artifacts=s3://bucket/x", "storage.share_cache=false"], False),
        (["storage.root=/a", "storage.artifacts=/a/artifacts", "storage.share_cache=true"], True),
    ],
)
def test_results_are_shared_when_the_store_is_elsewhere_or_the_recipe_says_so(
    overrides: list[str], expected: bool
) -> None:
    assert is_shared(to_recipe(compose(["recipe=viggo_quickstart", *overrides]))[0]) is expected


def test_a_plan_looks_into_a_folder_and_never_into_an_object_store(
    machines: tuple[Machine, Machine], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = machines
    first.run()
    capsys.readouterr()
    assert main(["recipe=viggo_quickstart", "action=plan", "format=json", *second.overrides]) == EXIT_DONE
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert {step["action"] for step in steps} == {"skip"}
    monkeypatch.setattr(SharedCache, "find", lambda *args: pytest.fail("asked the store"))
    far = [*second.overrides, "storage.artifacts=s3://bucket/x"]
    assert main(["recipe=viggo_quickstart", "action=plan", "format=json", *far]) == EXIT_DONE
    assert "results of other machines in s3://bucket/x are not looked at in a plan" in capsys.readouterr().err


def test_machines_share_results_through_s3(fake_stages: Any, bucket: str, tmp_path: Path) -> None:
    first, second = (Machine(tmp_path / name, f"s3://{bucket}/results", fake_stages) for name in ("first", "second"))
    assert "train" in first.run()
    assert second.run("evaluate.metrics=[exact_match]") == ["evaluate", "cleanup"]
    assert second.run("evaluate.metrics=[exact_match]") == []
