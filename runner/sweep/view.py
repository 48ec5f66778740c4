"""A sweep for the person at the terminal: its jobs as a table, the best one marked."""

from __future__ import annotations

from pathlib import Path

from runner.report.terminal import Report
from runner.sweep.state import Sweep


def show_sweep(report: Report, sweep: Sweep, folder: Path) -> None:
    """The changed values, score and outcome of each job."""
    best, changes = sweep.best(), sweep.changes()
    rows = []
    for job, changed in zip(sweep.jobs, changes, strict=True):
        value = "" if job.value is None else f"{job.value:.3f}"
        interval = "[{:.2f}, {:.2f}]".format(*job.interval) if job.interval else ""
        outcome = "best" if job is best else f"{job.status.replace('_', ' ')} {job.error}".strip()
        rows.append([str(job.number), *changed.values(), value, interval, outcome])
    columns = ("job", *(changes[0] if changes else ()), sweep.objective, "", "outcome")
    report.table(columns, rows, sweep.jobs.index(best) if best else None)
    report.say(f"sweep folder: {folder}")
