"""What the operating system refuses is one message with the place and what to do, and the run counts as failed."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from runner.cli.main import main
from runner.cluster.session import RaySession
from runner.errors import EXIT_INVALID_RECIPE, EXIT_STAGE_FAILED
from runner.pipeline.engine.run import Run
from runner.pipeline.manifest import Manifest
from runner.pipeline.runs import find_run
from runner.report.status import status_lines, status_of


def test_a_root_below_a_file_is_one_message(
    fake_stages: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "f").touch()
    assert main(["recipe=viggo_quickstart", f"storage.root={tmp_path}/f/sub"]) == EXIT_INVALID_RECIPE
    shown = capsys.readouterr().err
    assert f"{tmp_path / 'f'} is a file, not a folder" in shown
    assert "Traceback" not in shown


def test_a_full_disk_is_one_message_and_the_run_failed_and_continues_when_there_is_room(
    fake_stages: Any, local: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (root,) = (Path(text.partition("=")[2]) for text in local if text.startswith("storage.root="))
    real = Manifest.save

    def on_a_full_disk(self: Manifest, run_dir: Path) -> None:
        """Room is only in what the run has kept for its end."""
        if self.stages and (run_dir / ".reserve").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, run_dir)

    monkeypatch.setattr(Manifest, "save", on_a_full_disk)
    assert main(["recipe=viggo_quickstart", *local]) == EXIT_STAGE_FAILED
    shown = capsys.readouterr().err
    assert "no space left on device" in shown
    assert "Free space on that disk" in shown
    assert "Traceback" not in shown
    status = status_of(find_run(root, "latest"))
    assert (status["status"], status["alive"]) == ("failed", False)
    assert "no space left on device" in "\n".join(status_lines(status))
    monkeypatch.setattr(Manifest, "save", real)
    assert main(["recipe=viggo_quickstart", *local]) == 0
    assert status_of(find_run(root, "latest"))["status"] == "done"


def test_the_terminal_has_the_last_words_though_leaving_ray_fails(
    fake_stages: Any, local: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What it prints goes to a log whose disk is full."""

    def fails(self: RaySession) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(RaySession, "close", fails)
    assert main(["recipe=viggo_quickstart", *local]) == EXIT_STAGE_FAILED
    assert "no space left on device" in capfd.readouterr().err


def test_a_run_that_loses_its_cluster_says_so_and_ends_as_failed(
    fake_stages: Any, local: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (root,) = (Path(text.partition("=")[2]) for text in local if text.startswith("storage.root="))
    codes: list[int] = []

    def end(code: int) -> None:
        codes.append(code)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(sys.modules[Run.__module__], "kill_children", lambda: None)
    monkeypatch.setattr(Run, "capture", lambda run, stage: run.end_without_cluster("the head is lost"))
    main(["recipe=viggo_quickstart", *local])
    assert codes[0] == EXIT_STAGE_FAILED
    assert "the head is lost" in capsys.readouterr().out
    manifest = Manifest.load(find_run(root, "latest"))
    assert (manifest.status, manifest.ended_by) == ("failed", "the head is lost")
