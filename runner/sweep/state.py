"""sweep.json: which jobs a sweep has run, and what came of them, so that it can be continued and reported."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from runner.errors import EXIT_DONE, EXIT_GATE_REFUSED, EXIT_STAGE_FAILED, RunnerError
from runner.pipeline.optional import Objective
from runner.pipeline.runs import SWEEP, SWEEPS, next_stamp
from runner.storage.atomic import read_state, write_state
from runner.storage.digest import digest_json


class Job(BaseModel):
    """One combination of values, and the results of its run.

    value, interval, base: see `runner.pipeline.optional.Objective`.
    """

    number: int
    overrides: list[str]
    status: Literal["running", "done", "gate_refused", "failed", "interrupted"] = "running"
    run_id: str = ""
    folder: str = ""
    value: float | None = None
    interval: tuple[float, float] | None = None
    base: float | None = None
    wall_s: float = 0.0
    error: str = ""

    @property
    def finished(self) -> bool:
        return self.status in ("done", "gate_refused")


class Sweep(BaseModel):
    """A sweep: its identity (digest of the command), and its jobs in the order in which they began."""

    sweep_id: str
    identity: str
    command: str
    recipe: str = ""
    objective: str = ""
    created_at: float = 0.0
    status: Literal["running", "done", "failed", "interrupted"] = "running"
    jobs: list[Job] = Field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write the state, with the best run's id, by which `runner.pipeline.runs` finds it."""
        best = self.best()
        write_state(folder / SWEEP, self.model_dump(mode="json") | {"best": best.run_id if best else ""})

    @classmethod
    def load(cls, folder: Path) -> Sweep:
        """Raises RunnerError when the file is damaged, FileNotFoundError when there is none."""
        values = read_state(folder / SWEEP)
        try:
            return cls.model_validate({key: value for key, value in values.items() if key in cls.model_fields})
        except ValueError as error:
            raise RunnerError(f"{folder / SWEEP} is not a sweep: {error}", "Remove that folder.") from error

    def job(self, overrides: Iterable[str]) -> Job:
        """The job of these overrides, new ones at the end."""
        wanted = list(overrides)
        for job in self.jobs:
            if sorted(job.overrides) == sorted(wanted):
                return job
        self.jobs.append(Job(number=len(self.jobs), overrides=wanted))
        return self.jobs[-1]

    def interrupt(self) -> None:
        """Note that the sweep, and its jobs that were at work, were interrupted."""
        self.status = "interrupted"
        for job in self.jobs:
            job.status = "interrupted" if job.status == "running" else job.status

    def best(self) -> Job | None:
        """The finished job with the highest objective; one that the gate refused only when none passed."""
        scored = [job for job in self.jobs if job.finished and job.value is not None]
        passed = [job for job in scored if job.status == "done"]
        return max(passed or scored, key=lambda job: job.value or 0.0, default=None)

    def changes(self) -> list[dict[str, str]]:
        """For each job the values that are not the same in all jobs: `{key: value}`."""
        values = [dict(_split(override) for override in job.overrides) for job in self.jobs]
        keys = [
            key for key in dict.fromkeys(key for each in values for key in each)
            if len(values) == 1 or len({each.get(key) for each in values}) > 1
        ]  # fmt: skip
        return [{key: each.get(key, "") for key in keys} for each in values]

    def exit_code(self) -> int:
        """1 when a job failed, 3 when the gate refused every one, else 0."""
        statuses = {job.status for job in self.jobs}
        if "failed" in statuses:
            return EXIT_STAGE_FAILED
        return EXIT_GATE_REFUSED if statuses == {"gate_refused"} else EXIT_DONE


def _split(override: str) -> tuple[str, str]:
    key, _, value = override.lstrip("+").partition("=")
    return key, value


def open_sweep(root: Path, overrides: list[str], command: str) -> tuple[Sweep, Path]:
    """The newest sweep of exactly this command if it did not finish, else a new one; with its folder."""
    home, identity = root / SWEEPS, digest_json(overrides)
    for path in sorted(home.glob(f"*-{identity[:6]}*/{SWEEP}"), reverse=True):
        with suppress(RunnerError, OSError):
            found = Sweep.load(path.parent)
            if found.identity == identity and found.status != "done":
                found.status = "running"
                return found, path.parent
            break
    name = f"{next_stamp(path.name for path in home.glob('*'))}-{identity[:6]}"
    count, folder = 1, home / name
    while folder.exists():  # two sweeps within a second
        count += 1
        folder = home / f"{name}-{count}"
    sweep = Sweep(sweep_id=folder.name, identity=identity, command=command, created_at=time.time())
    sweep.save(folder)
    return sweep, folder


def outcome(job: Job, code: int, summary: dict[str, Any], reached: Objective, folder: Path) -> None:
    """Write into the job what its run's exit code and summary say."""
    job.status = {EXIT_DONE: "done", EXIT_GATE_REFUSED: "gate_refused"}.get(code, "failed")  # type: ignore[assignment]
    job.run_id, job.folder, job.wall_s = summary["run_id"], str(folder), summary["wall_s"]
    job.value, job.interval, job.base = reached.value, reached.interval, reached.base
    job.error = next((stage["error"] for stage in summary["stages"] if stage["error"]), None) or ""
