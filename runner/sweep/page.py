"""report.html and report.md of a sweep: its jobs as a table, with the best one marked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from runner.report.pages import write_pages
from runner.sweep.state import Job, Sweep

_TEMPLATES = Path(__file__).parent / "templates"


def write_sweep_report(folder: Path) -> list[Path]:
    """Write both files into the sweep's folder. Returns their paths.

    Raises RunnerError when the folder holds no readable sweep.json.
    """
    return write_pages(folder, "sweep", sweep_facts(folder), templates=_TEMPLATES)


def sweep_facts(folder: Path) -> dict[str, Any]:
    """Everything the templates of a sweep need. Raises RunnerError when sweep.json cannot be read."""
    sweep = Sweep.load(folder)
    changes, best = sweep.changes(), sweep.best()
    jobs = [
        {**job.model_dump(), "changes": changed, "link": _link(job, folder)}
        for job, changed in zip(sweep.jobs, changes, strict=True)
    ]
    return {
        "sweep": sweep.model_dump(),
        "keys": list(changes[0]) if changes else [],
        "jobs": jobs,
        "best": jobs[sweep.jobs.index(best)] if best else None,
        "overlapping": sum(_overlaps(job, best) for job in sweep.jobs if job is not best),
        "above_base": _is_above_base(best),
        "failed": sum(job.status == "failed" for job in sweep.jobs),
        "wall_s": sum(job.wall_s for job in sweep.jobs),
    }


def _overlaps(job: Job, best: Job | None) -> bool:
    if best is None or job.interval is None or best.interval is None:
        return False
    return job.interval[1] >= best.interval[0]


def _is_above_base(best: Job | None) -> bool | None:
    """Whether the best job's whole interval lies above its base model's score; None where that is not known."""
    if best is None or best.base is None or best.interval is None:
        return None
    return best.interval[0] > best.base


def _link(job: Job, folder: Path) -> str:
    """The run's report relative to the sweep's folder, also below a root that was moved; "" without one."""
    page = folder.parent.parent / Path(*Path(job.folder).parts[-2:]) / "report.html"
    return os.path.relpath(page, folder) if job.folder and page.is_file() else ""
