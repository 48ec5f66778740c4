"""`python -m tests.runner.report.jobs_view`: three jobs of a sweep, two at a time, that print into their own logs."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from runner.report.terminal import Report
from runner.sweep.capacity import Share
from runner.sweep.jobs import Planned, run_side_by_side
from runner.sweep.state import Job


@dataclass(frozen=True)
class Counting(Planned):
    """A job that is as far as the time since its start."""

    began_at: list[float] = field(default_factory=list)

    def progress(self) -> dict[str, object]:
        done = round((time.monotonic() - self.began_at[0]) * 20)
        return {"stage": "train", "event": {"done": done, "total": 12, "unit": "step", "loss": 0.5}}


def main() -> int:
    report, folder = Report(), Path(tempfile.mkdtemp())

    def start(planned: Planned, share: Share) -> subprocess.Popen[bytes]:
        assert isinstance(planned, Counting)
        planned.began_at.append(time.monotonic())
        with (folder / f"{planned.job.number}.log").open("wb") as log:
            return subprocess.Popen(["sh", "-c", "echo noise; sleep 0.6"], stdout=log, stderr=log)

    def ended(planned: Planned, code: int) -> None:
        report.stop()
        report.say(f"job {planned.job.number} {planned.label}: ended with {code}")

    jobs = [
        Counting(Job(number=number, overrides=[]), (), folder, "", "ingest", "", f"train.lora_rank={4 * number}")
        for number in (1, 2, 3)
    ]
    run_side_by_side(list(jobs), [Share(), Share()], start, ended, report.jobs, poll_s=0.05)
    report.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
