"""A run whose process group gets SIGTERM, as from `timeout`, saves what it has, like one that gets it alone."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from runner.errors import EXIT_INTERRUPTED
from tests.chaos.harness import Running, command, complete, manifest
from tests.tiny_model import write_tiny_model

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(600)]


def test_training_saves_a_checkpoint_and_continues_from_it(tmp_path: Path) -> None:
    root, model = tmp_path / "runs", tmp_path / "model"
    write_tiny_model(model)
    root.mkdir()
    line = command(root, model, root / "artifacts", "stop_after=train", "train.args.max_steps=1000")
    line += ["train.args.save_steps=1000"]
    screen = root / "screen.log"
    with screen.open("wb") as output:
        process = subprocess.Popen(line, cwd=root, stdout=output, stderr=output, start_new_session=True)
    running = Running(process, root, screen)
    running.watch()
    running.wait_for("a step", lambda: re.search(r"train: [1-9]\d*/1,000 steps", running.shown()))
    os.killpg(process.pid, signal.SIGTERM)
    assert running.wait() == EXIT_INTERRUPTED, running.shown()
    assert "saving a checkpoint" in running.shown()
    assert not running.left_over()
    again, code = complete(root, line)
    assert code == 0, again.shown()
    (record,) = (record for record in manifest(root).stages if record.name == "train")
    assert record.metrics["num_steps"] == 1000
    assert record.metrics["resumed_at_step"] > 0
    assert not again.left_over()
