"""Jobs of a sweep side by side, with processes that are made up."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runner.pipeline.engine.progress import PROGRESS
from runner.pipeline.manifest import Manifest
from runner.storage.atomic import write_state
from runner.sweep.capacity import Share
from runner.sweep.jobs import JobView, Planned, run_side_by_side
from runner.sweep.state import Job


class Made:
    """A job's process: goes through its stages, one a look, and ends with a code."""

    def __init__(self, folder: Path, stages: list[str], code: int) -> None:
        self.folder, self.stages, self.code, self.signals = folder, list(stages), code, []  # type: ignore[var-annotated]

    def poll(self) -> int | None:
        if self.signals:
            return 130
        if not self.stages:
            return self.code
        (self.folder / PROGRESS).write_text(json.dumps({"stage": self.stages.pop(0), "event": None}))
        return None

    def send_signal(self, number: int) -> None:
        self.signals.append(number)


class Sweep:
    """Starts made-up jobs, and writes down what happens."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log: list[str] = []
        self.most = 0
        self.now: dict[int, Made] = {}
        self.codes: dict[int, int] = {}

    def planned(self, number: int, makes: str = "") -> Planned:
        job = Job(number=number, overrides=[f"train.lora_rank={number}"])
        identity = f"{number:064d}"[::-1]
        folder = self.home / f"20260101-000000-{identity[:6]}"
        Manifest(run_id=folder.name, recipe=self.home.name).save(folder)
        write_state(folder / "identity.json", {"recipe_sha256": identity, "command": ""})
        return Planned(job, (), self.home, identity, "ingest", makes)

    def start(self, planned: Planned, share: Share) -> Made:
        number = planned.job.number
        self.log.append(f"start {number} on {share.cores}")
        folder = planned.run_folder()
        assert folder is not None
        self.now[number] = Made(folder, ["ingest", "ingest", "train", "infer"], self.codes.get(number, 0))
        self.most = max(self.most, len(self.now))
        return self.now[number]

    def ended(self, planned: Planned, code: int) -> None:
        del self.now[planned.job.number]
        self.log.append(f"end {planned.job.number} with {code}")

    def run(self, jobs: list[Planned], num: int, show: Any = None) -> None:
        shares = [Share((core,)) for core in range(num)]
        run_side_by_side(jobs, shares, self.start, self.ended, show or (lambda views: None), poll_s=0)


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path)


def test_as_many_run_at_a_time_as_there_are_shares_and_all_run(sweep: Sweep) -> None:
    sweep.run([sweep.planned(number) for number in range(5)], 2)
    assert sweep.most == 2
    assert sorted(line for line in sweep.log if line.startswith("end")) == [f"end {n} with 0" for n in range(5)]
    assert [line for line in sweep.log if "start" in line][:2] == ["start 0 on (0,)", "start 1 on (1,)"]


def test_a_job_that_fails_does_not_stop_the_others(sweep: Sweep) -> None:
    sweep.codes = {0: 1, 1: 3}
    sweep.run([sweep.planned(number) for number in range(3)], 2)
    assert {line for line in sweep.log if "end" in line} == {"end 0 with 1", "end 1 with 3", "end 2 with 0"}


def test_what_all_jobs_need_first_is_made_by_one_and_awaited_by_the_others(sweep: Sweep) -> None:
    stages_at_start: list[list[str]] = []
    start = sweep.start

    def noting(planned: Planned, share: Share) -> Made:
        stages_at_start.append([made.stages[0] if made.stages else "" for made in sweep.now.values()])
        return start(planned, share)

    sweep.start = noting  # type: ignore[method-assign]
    sweep.run([sweep.planned(0, "same"), sweep.planned(1, "same"), sweep.planned(2, "other")], 3)
    assert [line.split(" on")[0] for line in sweep.log if "start" in line] == ["start 0", "start 2", "start 1"]
    assert "ingest" not in stages_at_start[2][:1]  # the first job is past it


def test_an_interrupt_ends_every_job_in_order(sweep: Sweep) -> None:
    def show(views: list[JobView]) -> None:
        if len(views) == 2:
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        sweep.run([sweep.planned(number) for number in range(3)], 2, show)
    assert [made.signals for made in sweep.now.values()] == [[signal.SIGTERM]] * 2
    assert signal.getsignal(signal.SIGTERM) is before


def test_each_job_has_a_line_with_what_it_does(sweep: Sweep) -> None:
    seen: list[list[JobView]] = []
    sweep.run([sweep.planned(7)], 1, seen.append)
    assert {views[0][:2] for views in seen if views} >= {
        ("job 7", "starts"), ("job 7", "train"),
    }  # fmt: skip


def test_a_job_runs_on_its_cores_and_not_without_its_sweep(tmp_path: Path) -> None:
    code = (
        "import os, sys; import runner.cli.sweep_job as job;"
        "job.main = lambda arguments: print(os.sched_getaffinity(0));"
        "sys.exit(job.run(int(sys.argv[1]) or os.getppid(), sys.argv[2], []) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, "0", "0"], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("{0}", 0)
    done = subprocess.run([sys.executable, "-c", code, "1", "-"], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("", 130)
