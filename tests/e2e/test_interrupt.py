"""SIGTERM in the middle of training ends the run in order, and the same command goes on from there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runner.errors import EXIT_INTERRUPTED
from tests.e2e.conftest import Done, processes

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
PATIENCE_S = 300


def wait_for(text: str, log: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE_S
    while text not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.5)


def test_sigterm_while_training_ends_in_order(quickstart_run: Done, workspace: Path, tmp_path: Path) -> None:
    before = processes()
    log = tmp_path / "screen.log"
    command = [sys.executable, "-m", "runner", "recipe=viggo_quickstart", f"storage.root={workspace}", "seed=1"]
    with log.open("wb") as screen:
        process = subprocess.Popen(command, cwd=workspace.parent, stdout=screen, stderr=subprocess.STDOUT)
    wait_for("train: ", log, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=PATIENCE_S) == EXIT_INTERRUPTED
    shown = log.read_text()
    assert "interrupted; continue with: python -m runner recipe=viggo_quickstart" in shown
    assert "Traceback" not in shown
    manifest = json.loads(((workspace / "latest").resolve() / "manifest.json").read_text())
    assert manifest["status"] == "interrupted"
    assert [stage["status"] for stage in manifest["stages"]] == ["done", "interrupted"]
    assert not processes() - before
