"""report.html and report.md of a run's folder: one page without network, made from what the run has left on disk.

`write_report(folder)` is the whole interface. It only reads the folder and the local artifacts that its manifest
names, so it can be called again at any time. jinja2 and matplotlib are imported when it is called.
"""

from __future__ import annotations

from pathlib import Path

from runner.manifest import write_text
from runner.pages.facts import run_facts

HTML, MARKDOWN = "report.html", "report.md"


def write_report(folder: Path) -> list[Path]:
    """Write both files into the run's folder. Returns their paths.

    Raises RunnerError when the folder holds no readable manifest.
    """
    from runner.pages.render import render

    facts = run_facts(folder)
    paths = [folder / HTML, folder / MARKDOWN]
    for path, template in zip(paths, ("run.html.j2", "run.md.j2"), strict=True):
        write_text(path, render(template, facts))
    return paths
