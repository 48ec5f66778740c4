"""The loop, with stages that write a file each: what is run, what is reused, what a failure leaves."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from runner.errors import EXIT_DONE, EXIT_GATE_REFUSED, EXIT_STAGE_FAILED, LockedError, RunnerError, UsageError
from runner.pipeline.engine import run
from runner.pipeline.manifest import Manifest
from runner.pipeline.run_locks import lock_path
from runner.pipeline.stage import StageResult
from runner.recipe.load import compose, to_recipe
from runner.report.observers import observers
from runner.report.terminal import Report
from runner.storage.digest import digest_json
from runner.storage.lock import hold

ALL = ["ingest", "train", "publish", "infer", "evaluate", "serve", "query", "cleanup"]


def run_once(overrides: list[str], stream: io.StringIO | None = None) -> tuple[int, dict[str, Any]]:
    recipe, options = to_recipe(compose(["recipe=viggo_quickstart", *overrides]))
    return run(recipe, options, "python -m runner recipe=viggo_quickstart", observers(Report(stream or io.StringIO())))


def statuses(summary: dict[str, Any]) -> dict[str, str]:
    return {stage["name"]: stage["status"] for stage in summary["stages"]}


def test_runs_all_stages_in_order_the_first_time(fake_stages: Any, local: list[str]) -> None:
    code, summary = run_once(local)
    assert code == EXIT_DONE
    assert fake_stages.runs == ALL
    assert summary["status"] == "done"
    assert {"adapter", "predictions", "scores"} <= {artifact["name"] for artifact in summary["artifacts"]}


def test_takes_everything_over_the_second_time(fake_stages: Any, local: list[str]) -> None:
    _, first = run_once(local)
    fake_stages.runs.clear()
    code, second = run_once(local)
    assert (code, fake_stages.runs) == (EXIT_DONE, [])
    assert set(statuses(second).values()) == {"skipped"}
    assert {stage["origin_run"] for stage in second["stages"] if stage["name"] == "train"} == {first["run_id"]}


@pytest.mark.parametrize(
    ("change", "reruns"),
    [
        ("train.learning_rate=0.5", ["train", "publish", "infer", "evaluate", "serve", "query", "cleanup"]),
        ("infer.batch_size=3", ["infer", "evaluate", "cleanup"]),
        ("evaluate.metrics=[exact_match]", ["evaluate", "cleanup"]),
        ("query.num_rows=2", ["serve", "query", "cleanup"]),
        ("serve.engine_kwargs.max_num_seqs=3", ["serve", "query", "cleanup"]),
        ("evaluate.objective=exact_match_normalized", []),
        ("cluster.cpu_kv_cache_gib=3", []),
    ],
)
def test_a_change_reruns_what_depends_on_it(fake_stages: Any, local: list[str], change: str, reruns: list[str]) -> None:
    run_once(local)
    fake_stages.runs.clear()
    assert run_once([*local, change])[0] == EXIT_DONE
    assert fake_stages.runs == reruns


def test_force_runs_a_cached_stage_and_stops_where_its_output_is_the_same(fake_stages: Any, local: list[str]) -> None:
    run_once(local)
    fake_stages.runs.clear()
    run_once([*local, "force=[train]"])
    assert fake_stages.runs == ["train", "cleanup"]


def test_a_damaged_artifact_is_named_and_made_again(fake_stages: Any, local: list[str], tmp_path: Path) -> None:
    _, first = run_once(local)
    adapter = next(artifact for artifact in first["artifacts"] if artifact["name"] == "adapter")
    (Path(adapter["uri"]) / "content.json").write_text("corrupt")
    fake_stages.runs.clear()
    screen = io.StringIO()
    _, second = run_once(local, screen)
    assert "publish" in fake_stages.runs
    assert "train" not in fake_stages.runs
    assert "adapter is damaged" in screen.getvalue()
    assert second["status"] == "done"


def test_a_failure_names_stage_cause_log_and_the_command_that_continues(
    fake_stages: Any, local: list[str], tmp_path: Path
) -> None:
    fake_stages.fail.add("infer")
    screen = io.StringIO()
    code, summary = run_once(local, screen)
    shown = screen.getvalue()
    assert code == EXIT_STAGE_FAILED
    assert statuses(summary) == {"ingest": "done", "train": "done", "publish": "done", "infer": "failed"}
    assert "ValueError: no luck today" in shown
    assert "continue with: python -m runner recipe=viggo_quickstart" in shown
    log = tmp_path / "runs" / "viggo_quickstart" / summary["run_id"] / "logs" / "infer.log"
    assert str(log) in shown
    assert "Traceback" in log.read_text()


def test_the_same_command_continues_a_failed_run_in_its_folder(fake_stages: Any, local: list[str]) -> None:
    fake_stages.fail.add("infer")
    _, first = run_once(local)
    fake_stages.fail.clear()
    fake_stages.runs.clear()
    code, second = run_once(local)
    assert code == EXIT_DONE
    assert second["run_id"] == first["run_id"]
    assert fake_stages.runs == ["infer", "evaluate", "serve", "query", "cleanup"]


@pytest.mark.parametrize("linked", ["log", "folder of logs", "run"])
def test_a_run_that_would_be_written_to_elsewhere_is_not_continued(
    linked: str, fake_stages: Any, local: list[str], tmp_path: Path
) -> None:
    """As one that came with a stranger's recipe: what its stages print would go into the user's file."""
    fake_stages.fail.add("infer")
    _, first = run_once(local)
    fake_stages.fail.clear()
    folder = tmp_path / "runs" / "viggo_quickstart" / first["run_id"]
    place = {"log": folder / "logs" / "infer.log", "folder of logs": folder / "logs", "run": folder}[linked]
    outside = tmp_path / "outside"
    place.rename(outside)
    place.symlink_to(outside)
    before = {path: path.read_bytes() for path in [outside, *outside.rglob("*")] if path.is_file()}
    code, second = run_once(local)
    assert (code, second["run_id"] != first["run_id"]) == (EXIT_DONE, True)
    assert {path: path.read_bytes() for path in [outside, *outside.rglob("*")] if path.is_file()} == before


def test_a_link_within_the_run_s_folder_does_not_keep_it_from_being_continued(
    fake_stages: Any, local: list[str], tmp_path: Path
) -> None:
    fake_stages.fail.add("infer")
    _, first = run_once(local)
    fake_stages.fail.clear()
    (tmp_path / "runs" / "viggo_quickstart" / first["run_id"] / "newest.log").symlink_to("logs/infer.log")
    assert run_once(local)[1]["run_id"] == first["run_id"]


def test_what_a_continued_run_made_is_reused_by_the_next(fake_stages: Any, local: list[str]) -> None:
    fake_stages.fail.add("infer")
    run_once(local)
    fake_stages.fail.clear()
    run_once(local)
    fake_stages.runs.clear()
    assert run_once(local)[0] == EXIT_DONE
    assert fake_stages.runs == []


def test_latest_points_at_the_newest_run(fake_stages: Any, local: list[str], tmp_path: Path) -> None:
    run_once(local)
    _, second = run_once([*local, "query.num_rows=2"])
    latest = tmp_path / "runs" / "latest"
    assert latest.resolve().name == second["run_id"]
    assert json.loads((latest / "summary.json").read_text())["run_id"] == second["run_id"]
    assert Manifest.load(latest).status == "done"


def test_a_gate_that_refuses_stops_before_serve(
    fake_stages: Any, local: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.conftest import Evaluate

    made = Evaluate.run

    def refused(self: Any, ctx: Any) -> StageResult:
        result = made(self, ctx)
        return StageResult(result.artifacts, {"gate": {"passed": False, "missed": ["exact_match 0.1, asked >=0.5"]}})

    monkeypatch.setattr(Evaluate, "run", refused)
    screen = io.StringIO()
    code, summary = run_once(local, screen)
    assert code == EXIT_GATE_REFUSED
    assert "serve" not in statuses(summary)
    assert "exact_match 0.1, asked >=0.5" in screen.getvalue()


def test_undoes_what_a_stage_started_even_when_a_later_one_fails(
    fake_stages: Any, local: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.conftest import Serve

    undone: list[str] = []
    made = Serve.run

    def starts(self: Any, ctx: Any) -> StageResult:
        ctx.defer("first", lambda: undone.append("first"))
        ctx.defer("second", lambda: undone.append("second"))
        return made(self, ctx)

    monkeypatch.setattr(Serve, "run", starts)
    fake_stages.fail.add("query")
    assert run_once(local)[0] == EXIT_STAGE_FAILED
    assert undone == ["second", "first"]


@pytest.fixture
def warming(fake_stages: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Has infer start something as soon as the model is there; the list says during which stages it was asked to."""
    from tests.conftest import Infer

    asked: list[str] = []

    def warm_up(self: Any, ctx: Any, running_stage: str) -> str:
        asked.append(running_stage)
        assert not ctx.stage_dir.exists()
        ctx.defer("the engine", lambda: asked.append("undone"))
        return "the engine" if "model" in ctx.inputs else ""

    monkeypatch.setattr(Infer, "warm_up", warm_up, raising=False)
    return asked


def test_a_later_stage_starts_what_takes_long_while_an_earlier_one_runs(warming: list[str], local: list[str]) -> None:
    screen = io.StringIO()
    assert run_once(local, screen)[0] == EXIT_DONE
    assert warming == ["ingest", "train", "undone", "undone"]
    assert "infer: the engine is starting while train runs" in screen.getvalue()
    run_once([*local, "force=[query]"])
    assert warming == ["ingest", "train", "undone", "undone"], "infer's results are reused"


def test_what_cannot_start_early_is_reported_and_left_to_the_stage(
    fake_stages: Any, local: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.conftest import Infer

    def warm_up(self: Any, ctx: Any, running_stage: str) -> str:
        raise RunnerError("the port is taken")

    monkeypatch.setattr(Infer, "warm_up", warm_up, raising=False)
    screen = io.StringIO()
    assert run_once(local, screen)[0] == EXIT_DONE
    assert "infer: could not start anything while train runs: the port is taken" in screen.getvalue()
    assert fake_stages.runs == ALL


def test_only_uses_the_results_of_earlier_runs(fake_stages: Any, local: list[str]) -> None:
    run_once(local)
    fake_stages.runs.clear()
    code, _ = run_once([*local, "only=[evaluate]", "force=[evaluate]"])
    assert (code, fake_stages.runs) == (EXIT_DONE, ["evaluate"])


def test_only_says_what_is_missing_when_there_is_no_earlier_result(fake_stages: Any, local: list[str]) -> None:
    with pytest.raises(UsageError, match="needs 'predictions' of stage infer"):  # nothing was begun
        run_once([*local, "only=[evaluate]"])


def test_stop_after_and_start_at_split_a_run_in_two(fake_stages: Any, local: list[str]) -> None:
    run_once([*local, "stop_after=publish"])
    assert fake_stages.runs == ["ingest", "train", "publish"]
    fake_stages.runs.clear()
    run_once([*local, "start_at=infer"])
    assert fake_stages.runs == ["infer", "evaluate", "serve", "query", "cleanup"]


def test_a_second_run_of_the_same_recipe_is_told_who_holds_the_lock(
    fake_stages: Any, local: list[str], tmp_path: Path
) -> None:
    recipe, _ = to_recipe(compose(["recipe=viggo_quickstart", *local]))
    identity = digest_json(recipe.model_dump(mode="json"))
    with hold(lock_path(tmp_path / "runs", identity)), pytest.raises(LockedError, match="process"):
        run_once(local)
    assert run_once(local)[0] == EXIT_DONE


def test_a_deleted_checkpoint_is_not_trained_again_while_nothing_needs_it(fake_stages: Any, local: list[str]) -> None:
    _, first = run_once([*local, "cleanup.delete=[trained_weights]"])
    checkpoint = next(artifact for artifact in first["artifacts"] if artifact["name"] == "trained_weights")
    (Path(checkpoint["uri"]) / "content.json").unlink()
    fake_stages.runs.clear()
    run_once([*local, "cleanup.delete=[trained_weights]", "query.num_rows=2"])
    assert fake_stages.runs == ["serve", "query", "cleanup"]


def test_a_run_leaves_a_report_with_the_origins_of_its_values(fake_stages: Any, local: list[str]) -> None:
    screen = io.StringIO()
    composed = compose(["recipe=viggo_quickstart", *local])
    recipe, options = to_recipe(composed)
    _, summary = run(recipe, options, "python -m runner", observers(Report(screen)), composed.origins)
    folder = Path(recipe.storage.root) / recipe.name / summary["run_id"]
    assert re.search(rf"report: +{re.escape(str(folder))}/report.html\n", screen.getvalue())
    assert "recipes/dataset/viggo_slice.yaml" in (folder / "report.html").read_text()
    assert (folder / "report.md").read_text().startswith("## viggo\\_quickstart: ")


def test_a_page_that_cannot_be_made_does_not_fail_the_run(
    fake_stages: Any, local: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.report.pages.run_facts", lambda folder: 1 / 0)
    screen = io.StringIO()
    code, summary = run_once(local, screen)
    assert (code, summary["status"]) == (EXIT_DONE, "done")
    assert "no report.html: ZeroDivisionError: division by zero" in screen.getvalue()
