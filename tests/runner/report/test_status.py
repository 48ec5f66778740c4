"""What action=status says of a run: while it works, when it is done, and after it was killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.cli.main import main
from runner.errors import EXIT_DONE, EXIT_INVALID_RECIPE
from runner.pipeline.engine.progress import PROGRESS, ProgressFile, read_progress
from runner.pipeline.manifest import Manifest, StageRecord
from runner.pipeline.run_locks import one_run
from runner.report.status import status_lines, status_of
from runner.storage.atomic import write_state

IDENTITY = "a" * 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run that has ingested and is training."""
    folder = tmp_path / "runs" / "mine" / "20260101-120000-aaaaaa"
    done = StageRecord(name="ingest", status="done", wall_s=3.0, note="384 rows")
    Manifest(run_id=folder.name, recipe="mine", stages=[done]).save(folder)
    write_state(folder / "recipe.json", {})
    write_state(folder / "identity.json", {"recipe_sha256": IDENTITY, "command": "python -m runner recipe=mine"})
    progress = ProgressFile(folder, ["ingest", "train", "publish"], lambda: "http://127.0.0.1:8265")
    progress.begin("train")
    progress._written_at = 0.0
    progress.update("train", {"done": 5, "total": 48, "unit": "step", "loss": 0.41})
    return folder


def test_a_running_run_shows_what_it_does(folder: Path, tmp_path: Path) -> None:
    (folder / "logs").mkdir()
    (folder / "logs" / "train.log").touch()
    with one_run(tmp_path / "runs", IDENTITY, "python -m runner recipe=mine"):
        status = status_of(folder)
    assert (status["status"], status["stage"]) == ("running", "train")
    assert [(stage["name"], stage["status"]) for stage in status["stages"]] == [
        ("ingest", "done"), ("train", "running"), ("publish", "to come")
    ]  # fmt: skip
    shown = "\n".join(status_lines(status))
    assert "5/48 steps  loss 0.41" in shown
    assert "Ray's dashboard: http://127.0.0.1:8265" in shown
    assert f"log: {folder / 'logs' / 'train.log'}" in shown
    assert "continue with" not in shown


def test_a_killed_run_is_told_from_a_running_one(folder: Path) -> None:
    status = status_of(folder)
    assert status["status"] == "killed"
    shown = list(status_lines(status))
    assert "running" not in "".join(shown)
    assert shown[-1] == "continue with: python -m runner recipe=mine"


def test_status_of_a_finished_run(fake_stages: Any, local: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe=viggo_quickstart", *local]) == EXIT_DONE
    capfd.readouterr()
    assert main(["action=status", *local, "format=json"]) == EXIT_DONE
    status = json.loads(capfd.readouterr().out)
    assert (status["recipe"], status["status"]) == ("viggo_quickstart", "done")
    assert {stage["status"] for stage in status["stages"]} == {"done"}
    assert read_progress(Path(status["folder"])) is not None
    assert main(["action=status", "recipe=viggo_quickstart", f"runs=[{status['run_id']}]", *local]) == EXIT_DONE
    assert f"viggo_quickstart  {status['run_id']}  done" in capfd.readouterr().out


def test_no_run_is_named(local: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["action=status", *local]) == EXIT_INVALID_RECIPE
    assert "there is no run below" in capfd.readouterr().err
    assert main(["action=status", "runs=[gone]", *local]) == EXIT_INVALID_RECIPE
    assert "there is no run 'gone' below" in capfd.readouterr().err


def test_progress_is_written_at_a_bounded_rate(tmp_path: Path) -> None:
    clock = [100.0]
    progress = ProgressFile(tmp_path, ["train"], lambda: "", now=lambda: clock[0])
    progress.begin("train")
    seen = set()
    for step in range(1000):
        clock[0] += 0.01
        progress.update("train", {"done": step, "total": 1000, "unit": "step"})
        seen.add((tmp_path / PROGRESS).read_text())
    assert len(seen) == 6  # the beginning, and once every 2 s of 10
    progress.update("other", {"done": 1, "total": 1, "unit": "row"})
    state = read_progress(tmp_path)
    assert state is not None
    assert state["event"]["done"] >= 799


def test_a_folder_that_cannot_be_written_is_no_matter(tmp_path: Path) -> None:
    ProgressFile(tmp_path / "gone", ["train"], lambda: "").begin("train")
    assert read_progress(tmp_path / "gone") is None
    (tmp_path / PROGRESS).write_text("corrupt {")
    assert read_progress(tmp_path) is None
