"""The moments of a run to kill it at: three of each stage, seeded, and which process."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from stages.infer.journal import JOURNAL
from tests.chaos.harness import NUM_STEPS, NUM_TEST_ROWS, SAVE_STEPS, Running

POINTS = ("starting", "early", "late")
SEED = 20_26

# Of a process's command line: Ray names its workers by what they run, vLLM its engine's process.
_WORKER = {"train": "RayTrainWorker", "publish": "ray::upload", "infer": "MapWorker", "serve": "ServeReplica"}
_CORE = "VLLM::EngineCore"


@dataclass(frozen=True)
class Case:
    """Kill the process `target` of the stage by the signal, at the point."""

    stage: str
    target: str
    signal: str
    point: str
    trainer: str = "llamafactory"

    def __str__(self) -> str:
        named = [] if self.trainer == "llamafactory" else [self.trainer]
        return "-".join([self.stage, self.target, self.signal, self.point, *named])

    @property
    def rng(self) -> random.Random:
        return random.Random(f"{SEED} {self}")


CASES = [
    Case(stage, target, signal, point)
    for stage, other in (("train", "worker"), ("publish", "worker"), ("infer", "engine"), ("serve", "engine"))
    for target in ("driver", other)
    for signal in ("SIGKILL", "SIGTERM")
    for point in POINTS
]
CASES += [
    Case("train", target, signal, point, trainer)
    for trainer in ("accelerate", "axolotl")
    for target in ("driver", "worker")
    for signal in ("SIGKILL", "SIGTERM")
    for point in POINTS
]
# Processes of the cluster that the run starts, by the names of their programs.
SYSTEM = {"gcs": "gcs_server", "raylet": "raylet", "haproxy": "haproxy"}
CASES += [
    Case(stage, target, "SIGKILL", "early") for target in ("gcs", "raylet") for stage in ("train", "infer", "serve")
]
CASES += [Case("serve", "haproxy", "SIGKILL", "late")]
# The endpoint's engine at work for infer.
CASES += [Case("infer", "replica", signal, point) for signal in ("SIGKILL", "SIGTERM") for point in POINTS]


def worker_of(case: Case) -> str:
    """Word in the name of the process of Ray that does the stage's work."""
    return _WORKER["serve" if case.target == "replica" else case.stage]


def await_moment(case: Case, running: Running) -> psutil.Process:
    """Wait for the case's moment and return the process to kill."""
    running.wait_for(f"the stage {case.stage}", lambda: _begun(case.stage, running))
    found = _STAGES[case.stage](case, running)
    if isinstance(found, psutil.Process):
        return found
    if case.target in SYSTEM:
        program = SYSTEM[case.target]
        return running.wait_for(f"the program {program}", lambda: running.called(program))
    if case.target == "driver":
        return psutil.Process(running.process.pid)
    names = [worker_of(case)]
    if case.target in ("engine", "replica") and case.point != "starting":
        names = case.rng.sample([*names, _CORE], 2)  # the actor, or the engine's own process below it
    return running.wait_for(f"a process of {names}", lambda: next(filter(None, map(running.named, names)), None))


def _begun(stage: str, running: Running) -> bool:
    return running.stage_folder(stage).is_dir() if (running.root / "latest").exists() else False


def _pause(case: Case, most_s: float) -> None:
    time.sleep(case.rng.uniform(0.0, most_s))


def _train(case: Case, running: Running) -> None:
    home = running.stage_folder("train") / "checkpoints"
    if case.point == "starting":
        running.wait_for("a worker", lambda: running.named(_WORKER["train"]))
        until = time.monotonic() + case.rng.uniform(0.0, 8.0)
        while time.monotonic() < until and not _newest_step(home):  # a worker that was forked trains within seconds
            time.sleep(0.05)
        return
    num_saves = NUM_STEPS // SAVE_STEPS
    low, high = (2, num_saves // 2) if case.point == "early" else (num_saves // 2, num_saves - 3)
    step = case.rng.randint(low, high) * SAVE_STEPS
    running.wait_for(f"the checkpoint of step {step}", lambda: _newest_step(home) >= step)


def _newest_step(home: Path) -> int:
    """Step of the newest checkpoint that Ray Train knows."""
    import json

    for path in home.glob("*/checkpoint_manager_snapshot.json"):
        try:
            newest = json.loads(path.read_text())["latest_checkpoint_result"]
        except ValueError:
            return 0  # it is being written
        return int(newest["metrics"].get("step", NUM_STEPS)) if newest else 0
    return 0


def _publish(case: Case, running: Running) -> psutil.Process | None:
    """A stage of a second: the points are moments of it. A worker late in its upload is returned, and stands still."""

    def stored() -> bool:
        return any(path.is_file() for path in _store(running).rglob("*"))

    if case.target == "worker":
        worker: psutil.Process = running.wait_for("the upload", lambda: running.named(_WORKER["publish"]))
        if case.point != "late":
            return worker
        worker.suspend()
        while not stored():
            worker.resume()
            time.sleep(0.01)
            worker.suspend()
        return worker
    _pause(case, {"starting": 1.0, "early": 4.0, "late": 8.0}[case.point])
    if case.point == "late":
        running.wait_for("a file in the store", stored)
    return None


def _store(running: Running) -> Path:
    return running.root / "artifacts"


def _infer(case: Case, running: Running) -> None:
    if case.point == "starting":
        running.wait_for("the engine", lambda: running.named(worker_of(case)))
        _pause(case, 20.0)
        return
    total = 2 * NUM_TEST_ROWS
    low, high = (0.05, 0.4) if case.point == "early" else (0.5, 0.8)
    count = int(case.rng.uniform(low, high) * total)
    journal = running.stage_folder("infer") / JOURNAL
    running.wait_for(f"{count} predictions", lambda: _num_lines(journal) >= count)


def _num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def _serve(case: Case, running: Running) -> None:
    if case.point == "starting":
        running.wait_for("a replica", lambda: running.named(_WORKER["serve"]))
        _pause(case, 20.0)
        return
    if case.point == "early":
        running.wait_for("the engine", lambda: running.named(_CORE))
        _pause(case, 15.0)
        return
    running.wait_for("the questions", lambda: running.stage_folder("query").is_dir())
    _pause(case, 1.5)


_STAGES: dict[str, Callable[[Case, Running], Any]] = {
    "train": _train,
    "publish": _publish,
    "infer": _infer,
    "serve": _serve,
}
