"""Jobs of a sweep side by side: each a process with a log of its own, started as soon as there is a share for it.

Of jobs whose first stage would make the same thing, one makes it and the others wait for that.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from runner.pipeline.engine.progress import read_progress
from runner.pipeline.runs import runs_of
from runner.report.progress_text import progress_text
from runner.sweep.capacity import Share
from runner.sweep.state import Job

_POLL_S = 0.5
JobView = tuple[str, str, str, str]  # name, state, detail, what is special about the job


class Process(Protocol):
    """What is used of subprocess.Popen."""

    def poll(self) -> int | None: ...

    def send_signal(self, number: int) -> None: ...


@dataclass(frozen=True)
class Planned:
    """A job to run. home: folder of its recipe's runs. identity: digest of its recipe, which its run folder has.

    first: name of its first stage; makes: that stage's fingerprint, "" when its result is reused. label: the values
    that not all jobs have.
    """

    job: Job
    arguments: tuple[str, ...]
    home: Path
    identity: str
    first: str
    makes: str
    label: str = ""

    def run_folder(self) -> Path | None:
        """The newest run of the recipe."""
        return next(runs_of(self.home, self.identity), None)

    def progress(self) -> dict[str, Any]:
        folder = self.run_folder()
        return (read_progress(folder) if folder else None) or {}


Start = Callable[[Planned, Share], Process]


def start_process(folder: Path) -> Start:
    """Starts a job with its output in `<folder>/jobs/<number>.log`."""

    def start(planned: Planned, share: Share) -> Process:
        log = folder / "jobs" / f"{planned.job.number}.log"
        log.parent.mkdir(exist_ok=True)
        cores = "-" if share.cores is None else ",".join(map(str, share.cores))
        env = {} if share.gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(share.gpus)}
        command = [sys.executable, "-P", "-m", "runner.cli.sweep_job", str(os.getpid()), cores, *planned.arguments]
        with log.open("ab") as output:
            # In a group of its own: Ctrl-C reaches the sweep alone, which then interrupts each job once.
            return subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **env},
                process_group=0,
            )  # fmt: skip

    return start


def run_side_by_side(
    waiting: list[Planned],
    shares: list[Share],
    start: Start,
    on_end: Callable[[Planned, int], None],
    show: Callable[[list[JobView]], None],
    poll_s: float = _POLL_S,
) -> None:
    """Run every job, as many at a time as there are shares; `on_end` gets each one's exit code.

    Raises KeyboardInterrupt on Ctrl-C and SIGTERM, when all jobs have ended in order.
    """
    waiting, free = list(waiting), list(shares)
    running: list[tuple[Planned, Process, Share]] = []
    with _sigterm_as_interrupt():
        try:
            while waiting or running:
                for entry in [each for each in running if each[1].poll() is not None]:
                    running.remove(entry)
                    free.append(entry[2])
                    on_end(entry[0], entry[1].poll() or 0)
                progress = {planned.job.number: planned.progress() for planned, _, _ in running}
                making = {
                    each.makes
                    for each, _, _ in running
                    if progress[each.job.number].get("stage") in (None, "", each.first)
                }
                for planned in list(waiting):
                    if free and not (planned.makes and planned.makes in making):
                        waiting.remove(planned)
                        share = free.pop(0)
                        running.append((planned, start(planned, share), share))
                        making.add(planned.makes)
                show([_view(planned, progress.get(planned.job.number, {})) for planned, _, _ in running])
                if waiting or running:
                    time.sleep(poll_s)
        except KeyboardInterrupt:
            _interrupt([process for _, process, _ in running], poll_s)
            raise


def _view(planned: Planned, progress: dict[str, Any]) -> JobView:
    stage, event = progress.get("stage") or "starts", progress.get("event")
    return f"job {planned.job.number}", stage, progress_text(event) if event else "", planned.label


def _interrupt(processes: list[Process], poll_s: float) -> None:
    """Interrupt each job, once for every time that this process is, and wait for their end."""
    again = True
    while any(process.poll() is None for process in processes):
        try:
            for process in processes:
                if again and process.poll() is None:
                    process.send_signal(signal.SIGTERM)
            again = False
            time.sleep(poll_s)
        except KeyboardInterrupt:
            again = True


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    saved = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, saved)
