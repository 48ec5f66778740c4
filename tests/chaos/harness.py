"""Runs of a small recipe that are killed: start one, wait for a moment in it, kill a process of it, look what is left.

A random model of two layers stands for the real one, so that a stage takes as long as its imports.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from runner.errors import RunnerError
from runner.pipeline.manifest import Manifest
from runner.storage.atomic import write_state

STAGES = ["ingest", "train", "publish", "infer", "serve", "query"]
NUM_TEST_ROWS = 400
NUM_STEPS = 80
SAVE_STEPS = 8
PATIENCE_S = 400.0
_GONE_S = 90.0  # Ray's agents look for a killed cluster's head for a minute


def command(root: Path, model: Path, store: Path, *overrides: str) -> list[str]:
    """The recipe's command line. root: its run folders; store: its artifact store.

    In float32, where an answer is the same whatever shares its batch, as a resumed run makes other batches.
    """
    return [
        sys.executable, "-m", "runner", "recipe=viggo_quickstart", "name=chaos", f"pipeline=[{','.join(STAGES)}]",
        f"storage.root={root}", f"storage.cache={root}/cache", f"storage.artifacts={store}",
        "storage.share_cache=false",
        f"model.source={model}", "evaluate.compare_base=true",
        f'dataset.source="generated://viggo?train=64&val=4&test={NUM_TEST_ROWS}&seed=7"',
        f"train.args.max_steps={NUM_STEPS}", f"+train.args.save_steps={SAVE_STEPS}",
        "train.args.per_device_train_batch_size=2", "train.args.cutoff_len=496",
        "infer.batch_size=8", "infer.sampling.max_tokens=16", "infer.engine_kwargs.max_model_len=512",
        "infer.engine_kwargs.dtype=float32", "infer.engine=own", "serve.port=0", "query.num_rows=20", *overrides,
    ]  # fmt: skip


@dataclass
class Running:
    """A started run, its screen, and every process that it or its Ray ever started, by (pid, time of birth)."""

    process: subprocess.Popen[bytes]
    root: Path
    screen: Path
    seen: dict[tuple[int, float], psutil.Process] = field(default_factory=dict)
    _watching: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        """Keep looking for new processes: those of a parent that died could not be found later."""

        def look() -> None:
            while not self._watching.wait(0.5):
                self._look()

        self._look()
        threading.Thread(target=look, daemon=True).start()

    def _look(self) -> None:
        with suppress(psutil.Error):
            own = psutil.Process(self.process.pid)
            self.seen[own.pid, own.create_time()] = own
        for parent in list(self.seen.values()):
            with suppress(psutil.Error):
                for child in parent.children(recursive=True):
                    self.seen[child.pid, child.create_time()] = child

    def alive(self) -> list[psutil.Process]:
        """Processes of the run that are there now."""
        self._look()
        found = []
        for process in list(self.seen.values()):
            with suppress(psutil.Error):
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def named(self, word: str) -> psutil.Process | None:
        """A process of the run whose command line has the word."""
        for process in self.alive():
            with suppress(psutil.Error):
                if word in " ".join(process.cmdline()):
                    return process
        return None

    def called(self, program: str) -> psutil.Process | None:
        """A process of the run whose program has that name."""
        for process in self.alive():
            with suppress(psutil.Error):
                if process.name() == program:
                    return process
        return None

    def shown(self) -> str:
        return self.screen.read_text(errors="replace")

    def wait_for(self, what: str, moment: Callable[[], Any]) -> Any:
        """Wait until `moment` gives something, and return it."""
        end = time.monotonic() + PATIENCE_S
        while not (found := moment()):
            assert self.process.poll() is None, f"it ended before {what}:\n{self.shown()}"
            assert time.monotonic() < end, f"{what} did not come:\n{self.shown()}"
            time.sleep(0.05)
        return found

    def wait(self) -> int:
        """The exit code."""
        return self.process.wait(timeout=PATIENCE_S)

    def left_over(self) -> list[str]:
        """What is still there some time after the end; it is killed, so that the next run has the machine."""
        end = time.monotonic() + _GONE_S
        while (left := self.alive()) and time.monotonic() < end:
            time.sleep(0.3)
        self._watching.set()
        names = []
        for process in left:
            with suppress(psutil.Error):
                names.append(" ".join(process.cmdline())[:80] or process.name())
                process.kill()
        return names

    @property
    def folder(self) -> Path:
        """The newest run's folder."""
        return (self.root / "latest").resolve()

    def stage_folder(self, stage: str) -> Path:
        return self.folder / stage


def start(root: Path, line: list[str], env: dict[str, str] | None = None) -> Running:
    root.mkdir(parents=True, exist_ok=True)
    screen = root / f"screen-{time.time_ns()}.log"
    with screen.open("wb") as output:
        process = subprocess.Popen(
            line, cwd=root, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}
        )
    running = Running(process, root, screen)
    running.watch()
    return running


def complete(root: Path, line: list[str]) -> tuple[Running, int]:
    """Run it to its end."""
    running = start(root, line)
    return running, running.wait()


def manifest(root: Path) -> Manifest:
    return Manifest.load((root / "latest").resolve())


def continue_from(reference: Path, root: Path, before: str) -> None:
    """Make a root whose past holds the reference's stages before that one, and nothing else."""
    past = manifest(reference)
    done = STAGES[: STAGES.index(before)]
    past.stages = [record.model_copy(update={"status": "done"}) for record in past.stages if record.name in done]
    past.status = "done"
    folder = root / past.recipe / past.run_id
    past.save(folder)
    write_state(folder / "identity.json", {"recipe_sha256": "", "command": ""})


def statuses(root: Path) -> dict[str, str]:
    try:
        return {record.name: record.status for record in manifest(root).stages}
    except (RunnerError, OSError):
        return {}


def outcome(root: Path, stage: str) -> Any:
    """What must be the same after a kill: digests of what the stage made, or the answers of the endpoint."""
    found = manifest(root)
    name = {"ingest": "train_set", "train": "trained_weights", "publish": "adapter", "infer": "predictions"}.get(stage)
    if name:
        artifact = found.artifact(name)
        return artifact.sha256 if artifact else None
    answers = found.artifact("answers")
    assert answers is not None
    table = json.loads((answers.path / "answers.json").read_text())
    return [[row["id"], row["base"]["text"], row["tuned"]["text"]] for row in table]


def send(process: psutil.Process | subprocess.Popen[bytes], name: str) -> None:
    process.send_signal(getattr(signal, name))
    with suppress(ProcessLookupError, psutil.Error):
        process.send_signal(signal.SIGCONT)  # one that stands still would get no signal but SIGKILL


def remove(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
