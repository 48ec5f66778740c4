"""report.html and report.md of a run, or of all runs of a recipe: a page without network, made from what is on disk.

`write_report(folder)` and `write_recipe_report(root, name)` are the whole interface. They only read the folders and the
local artifacts that these name, so they can be called again at any time. jinja2 and matplotlib are imported when they
are called.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.pipeline.manifest import DRAWINGS
from runner.report.pages.facts import run_facts
from runner.storage.atomic import write_text

HTML, MARKDOWN = "report.html", "report.md"


def write_report(folder: Path) -> list[Path]:
    """Write both files into the run's folder. Returns their paths.

    Raises RunnerError when the folder holds no readable manifest.
    """
    from runner.report.pages.render import render_part

    facts, drawings = run_facts(folder), folder.parent / DRAWINGS
    drawn = {suffix: [render_part(each, suffix, drawings) for each in facts["parts"]] for suffix in ("html", "md")}
    return write_pages(folder, "run", facts, drawn=drawn)


def write_recipe_report(root: Path, name: str) -> list[Path]:
    """Write the page over all runs of the recipe into `<root>/<name>`. Returns the paths of both files.

    Raises RunnerError when the recipe has no runs there.
    """
    from runner.report.pages.charts import drawn
    from runner.report.pages.recipe_facts import recipe_facts

    facts = recipe_facts(root, name)
    charts = drawn(facts.pop("charts"), root / name / DRAWINGS)
    return write_pages(root / name, "recipe", {**facts, "charts": charts})


def write_pages(
    folder: Path,
    kind: str,
    facts: Mapping[str, Any],
    *,
    drawn: Mapping[str, list[str]] | None = None,
    templates: Path | None = None,
) -> list[Path]:
    """Render `<kind>.html.j2` and `<kind>.md.j2` into the folder. drawn: parts that are rendered already, by suffix."""
    from runner.report.pages.render import render

    paths = [folder / HTML, folder / MARKDOWN]
    for path, suffix in zip(paths, ("html", "md"), strict=True):
        known = {**facts, "drawn": drawn[suffix]} if drawn else facts
        write_text(path, render(f"{kind}.{suffix}.j2", known, templates))
    return paths
