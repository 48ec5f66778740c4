"""report.html and report.md of a run or a sweep: one page without network, made from what was left on disk.

`write_report(folder)` and `write_sweep_report(folder)` are the whole interface. They only read the folder and the local
artifacts that it names, so they can be called again at any time. jinja2 and matplotlib are imported when it is called.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runner.report.pages.facts import run_facts
from runner.report.pages.sweep_facts import sweep_facts
from runner.storage.atomic import write_text

HTML, MARKDOWN = "report.html", "report.md"


def write_report(folder: Path) -> list[Path]:
    """Write both files into the run's folder. Returns their paths.

    Raises RunnerError when the folder holds no readable manifest.
    """
    return _write(folder, "run", run_facts(folder))


def write_sweep_report(folder: Path) -> list[Path]:
    """Write both files into the sweep's folder. Returns their paths.

    Raises RunnerError when the folder holds no readable sweep.json.
    """
    return _write(folder, "sweep", sweep_facts(folder))


def _write(folder: Path, kind: str, facts: dict[str, Any]) -> list[Path]:
    from runner.report.pages.render import render

    paths = [folder / HTML, folder / MARKDOWN]
    for path, suffix in zip(paths, ("html", "md"), strict=True):
        write_text(path, render(f"{kind}.{suffix}.j2", facts))
    return paths
