"""One real run of the quickstart for all end-to-end tests of a session: real Ray, LLaMA-Factory, vLLM, Ray Serve."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

RUN_TIMEOUT_S = 1500


@dataclass(frozen=True)
class Done:
    """A finished command of the runner: its exit code, what it printed, and the summary of its run."""

    code: int
    shown: str
    folder: Path
    summary: dict[str, Any]

    def artifact(self, name: str) -> dict[str, Any]:
        return next(artifact for artifact in self.summary["artifacts"] if artifact["name"] == name)

    def status(self, stage: str) -> str:
        return next(item["status"] for item in self.summary["stages"] if item["name"] == stage)


def run_recipe(*overrides: str, root: Path, env: dict[str, str] | None = None) -> Done:
    """`python -m runner recipe=viggo_quickstart ...` in a process of its own."""
    command = [sys.executable, "-m", "runner", "recipe=viggo_quickstart", f"storage.root={root}", *overrides]
    done = subprocess.run(
        command,
        cwd=root.parent,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_TIMEOUT_S,
    )
    folder = (root / "latest").resolve()
    summary = folder / "summary.json"
    return Done(done.returncode, done.stdout, folder, json.loads(summary.read_text()) if summary.is_file() else {})


def processes() -> set[int]:
    """Process ids of everything that runs Ray, vLLM or the runner now."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ")
        except OSError:
            continue  # it ended while we looked
        words = (b"site-packages/ray", b"ray::", b"VLLM::", b"vllm", b"-m runner")
        if any(word in command for word in words):
            found.add(int(path.parent.name))
    return found


@contextmanager
def serving(log: Path, *overrides: str, env: dict[str, str] | None = None) -> Iterator[tuple[str, int]]:
    """The runner with an endpoint that stays up: its URL and the run's process id. SIGTERM ends it with the block."""
    with log.open("w") as file:
        run = subprocess.Popen(
            [sys.executable, "-m", "runner", "serve.keep_alive=true", "serve.port=0", *overrides],
            cwd=log.parent, env={**os.environ, **(env or {})}, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        while "Press Ctrl-C" not in log.read_text():
            assert run.poll() is None, log.read_text()
            time.sleep(0.5)
        found = re.search(r"^URL +(\S+)$", log.read_text(), re.MULTILINE)
        assert found
        yield found[1], run.pid
    finally:
        run.send_signal(signal.SIGTERM)
        run.wait(timeout=120)


def ray_sessions() -> set[str]:
    """Folders of temporary files of the Ray clusters that ran on this machine."""
    return {path.name for path in Path("/tmp/ray").glob("session_2*")}


def engine_files() -> set[str]:
    """What vLLM's engines have left in the folder of temporary files: their sockets, and where their process met."""
    form = re.compile(r"vllm-|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
    return {path.name for path in Path(tempfile.gettempdir()).iterdir() if form.match(path.name)}


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quickstart") / "runs"


@pytest.fixture(scope="session")
def quickstart_run(workspace: Path) -> Done:
    """The whole quickstart, once."""
    before, sessions, files = processes(), ray_sessions(), engine_files()
    done = run_recipe("serve.port=0", root=workspace)
    assert done.code == 0, done.shown
    left = processes() - before
    assert not left, f"the run left processes behind: {left}"
    assert not ray_sessions() - sessions, "the run left Ray's temporary files behind"
    assert not engine_files() - files, "the run left its engines' temporary files behind"
    return done
