"""Both sides of a comparison: a stage run by the runner, and the process that does the same with the bare tool.

Every turn of either side is a process of its own, so that neither finds anything warm that the other has not. What the
sides share (the data, the model's folder, a trained adapter) is made once, before the first turn, by the runner.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import measure
from runner.cluster import environments
from runner.pipeline.manifest import Manifest, StageRecord
from runner.recipe.load import compose, to_recipe
from stages.sections.recipe import Recipe, with_sections

_WAIT_FOR_MEMORY_S = 60


@dataclass(frozen=True)
class Work:
    """What both sides work on: the recipe, its overrides, and the folders that the runner's earlier stages made."""

    recipe: Recipe
    overrides: tuple[str, ...]
    folders: Mapping[str, Path]
    root: Path


@dataclass(frozen=True)
class Turn:
    """One run of one side. wall_s: from the command to its end. peak_gpu_mib: 0 without a GPU."""

    wall_s: float
    began_at: float
    peak_gpu_mib: int
    figures: dict[str, Any]


def parser(doc: str, *, repeats: int) -> argparse.ArgumentParser:
    """Options that every comparison has. What is left over are overrides of the recipe."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--repeats", type=int, default=repeats, help=f"turns of each side (default {repeats})")
    made.add_argument("--root", type=Path, default=None, help="folder of the runs (default: a temporary one)")
    made.add_argument("--name", default=None, help="name of the results, when one comparison is run several ways")
    made.add_argument("overrides", nargs="*", help="key=value of the recipe, such as cluster=local_gpu")
    return made


def with_defaults(defaults: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """The overrides after those defaults whose key they do not set themselves."""
    given = {override.partition("=")[0] for override in overrides}
    return [default for default in defaults if default.partition("=")[0] not in given] + list(overrides)


@contextmanager
def workspace(root: Path | None) -> Iterator[Path]:
    """The folder to work in: the one given, or a temporary one. SIGTERM ends the comparison and what it started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if root is not None:
        root.mkdir(parents=True, exist_ok=True)
        yield root.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        yield Path(folder)


def prepare(overrides: Sequence[str], root: Path, stop_after: str) -> Work:
    """Run the pipeline up to a stage, and say where its results lie."""
    given = (f"storage.root={root}", f"storage.artifacts={root}/artifacts", *overrides)
    recipe, _ = to_recipe(compose(list(given)))
    run_recipe([*given, f"stop_after={stop_after}"], root / "logs" / "prepare.log")
    manifest = Manifest.load((root / "latest").resolve())
    artifacts = [artifact for record in manifest.stages for artifact in record.artifacts]
    return Work(with_sections(recipe), given, {artifact.name: artifact.path for artifact in artifacts}, root)


def run_recipe(overrides: Sequence[str], log: Path) -> Turn:
    """`python -m runner` in a process of its own."""
    return process([sys.executable, "-m", "runner", *overrides], log)


def run_stage(work: Work, name: str, log: Path, *extra: str) -> tuple[Turn, StageRecord]:
    """One stage by the runner, on the results of the stages before it."""
    turn = run_recipe([*work.overrides, f"only=[{name}]", f"force=[{name}]", *extra], log)
    manifest = Manifest.load((work.root / "latest").resolve())
    return turn, next(record for record in manifest.stages if record.name == name)


def interpreter(environment: str | None) -> str:
    """The Python of an environment of a stage (`requirements/environments`); None: this one."""
    return str(environments.python(environment)) if environment else sys.executable


def run_bare(
    module: str,
    job: Mapping[str, Any],
    folder: Path,
    env: Mapping[str, str] | None = None,
    *,
    num_processes: int = 1,
    environment: str | None = None,
) -> Turn:
    """`python -m benchmarks.<module> JOB RESULT` in a process of its own; its figures are what it wrote to RESULT.

    num_processes: more than one are started by torchrun. environment: that the stage runs in, None: the runner's own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    task, result = folder / "job.json", folder / "result.json"
    task.write_text(json.dumps(job))
    result.unlink(missing_ok=True)
    several = ["torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}", "-m"]
    command = [interpreter(environment), "-m", *(several if num_processes > 1 else []), f"benchmarks.{module}"]
    turn = process([*command, str(task), str(result)], folder / "log.txt", env)
    return Turn(turn.wall_s, turn.began_at, turn.peak_gpu_mib, json.loads(result.read_text()))


def process(command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> Turn:
    """Run a command to its end. Raises RuntimeError with the end of its log when it fails."""
    with gpu_peak() as peak:
        began_at, begin = time.time(), time.perf_counter()
        with running(command, log, env or {}) as child:
            code = child.wait()
        wall_s = time.perf_counter() - begin
    if code:
        raise RuntimeError(f"{' '.join(command)} ended with {code}:\n{log.read_text()[-3000:]}")
    return Turn(wall_s, began_at, peak[0], {})


@contextmanager
def running(command: Sequence[str], log: Path, env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block: interrupted as by Ctrl-C, waited for, and then killed with its children.

    The logs of the Ray that it has started, which a run removes at its end, are kept next to its own log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        child = subprocess.Popen(  # noqa: S603
            list(command), env={**os.environ, **env}, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield child
    finally:
        for session in ray_sessions(child.pid):
            with suppress(shutil.Error):  # a log that has gone meanwhile
                shutil.copytree(session / "logs", log.with_suffix(".ray"), dirs_exist_ok=True)
        child.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            child.wait(timeout=120)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def ray_sessions(pid: int) -> list[Path]:
    """The folders of the Ray that this process has started: one, or none."""
    return [path for path in (Path(tempfile.gettempdir()) / "ray").glob("session_2*") if path.name.endswith(f"_{pid}")]


@contextmanager
def gpu_peak() -> Iterator[list[int]]:
    """The most memory in use on one of this process's GPUs (MiB, twice a second); waits at the end until it is free."""
    peak = [0]
    if measure.gpu_name() is None:
        yield peak
        return
    level, stop = measure.gpu_memory_mib(), threading.Event()

    def follow() -> None:
        while not stop.wait(0.5):
            peak[0] = max(peak[0], measure.gpu_memory_mib())

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()
        end = time.monotonic() + _WAIT_FOR_MEMORY_S
        while measure.gpu_memory_mib() > level + 100 and time.monotonic() < end:
            time.sleep(0.5)


def say(text: str) -> None:
    """Progress of a comparison, on stderr."""
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)
