"""What the page over all runs of a recipe says: their history, scores over time, and loss curves over each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.errors import RunnerError, UsageError
from runner.pipeline.results import Chart, FinishedRun, Part, Series
from runner.pipeline.runs import run_folders
from runner.recipe.load import flatten
from runner.report.pages.parts import finished_run, parts_of, status_now

_MAX_RUNS = 100
_MAX_CURVES = 5  # as many as there are colours


def recipe_facts(root: Path, name: str) -> dict[str, Any]:
    """`{name, runs, figures, keys, charts, omitted, damaged}`; the newest run first.

    A run is `{id, status, created_at, wall_s, link, changed, figures}`; figures: what its stages follow from run to
    run; changed: keys of the recipe that are not the same in all runs. Raises UsageError when there is no run.
    """
    folders = list(reversed(run_folders(root, name)))
    if not folders:
        raise UsageError(f"there is no run of {name} below {root}", "Start one, or say where: storage.root=...")
    runs, damaged = [], []
    for folder in folders[:_MAX_RUNS]:
        try:
            runs.append(finished_run(folder))
        except (RunnerError, OSError) as error:
            damaged.append(f"{folder.name}: {error}")
    parts = [[each.part for each in parts_of(run)] for run in runs]
    figures = [_figures(found) for found in parts]
    ordered = sorted((part for found in parts for part in found), key=lambda part: part.order)
    names = list(dict.fromkeys(key for part in ordered for key in part.figures))
    keys, changes = _changes(runs)
    return {
        "name": name,
        "runs": [_row(run, *each) for run, *each in zip(runs, figures, changes, strict=True)],
        "figures": names,
        "keys": keys,
        "charts": {**_history(figures, names), **_curves(runs, parts)},
        "omitted": max(0, len(folders) - _MAX_RUNS),
        "damaged": damaged,
    }


def _figures(parts: list[Part]) -> dict[str, float]:
    return {name: value for part in parts for name, value in part.figures.items()}


def _row(run: FinishedRun, figures: Mapping[str, float], changed: Mapping[str, Any]) -> dict[str, Any]:
    manifest = run.manifest
    page = run.folder / "report.html"
    return {
        "id": manifest.run_id,
        "status": status_now(run),
        "created_at": manifest.created_at,
        "wall_s": sum(record.wall_s for record in manifest.stages),
        "link": f"{run.folder.name}/report.html" if page.is_file() else "",
        "changed": changed,
        "figures": figures,
    }


def _changes(runs: list[FinishedRun]) -> tuple[list[str], list[dict[str, Any]]]:
    """Keys whose value is not the same in all runs, and these of each run. Folders of the machine are left out."""
    values = [{key: value for key, value in flatten(run.recipe) if not key.startswith("storage.")} for run in runs]
    keys = sorted({key for each in values for key in each})
    differing = [key for key in keys if len({repr(each.get(key)) for each in values}) > 1]
    return differing, [{key: each.get(key) for key in differing} for each in values]


def _history(figures: list[dict[str, float]], names: list[str]) -> dict[str, Chart]:
    """Each figure that has changed from run to run, from the oldest to the newest."""
    charts = {}
    for name in names:
        ordered = [found[name] for found in reversed(figures) if name in found]
        if len(set(ordered)) > 1:
            points = [(float(number), value) for number, value in enumerate(ordered, 1)]
            charts[f"history-{name}"] = Chart("run, oldest first", [Series(name.replace("_", " "), points, "points")])
    return charts


def _curves(runs: list[FinishedRun], parts: list[list[Part]]) -> dict[str, Chart]:
    """Each curve of the newest runs that have it, over each other; curves of the same points are drawn once."""
    found: dict[str, dict[str, Any]] = {}
    for run, each in zip(runs, parts, strict=True):
        for part in each:
            for name, points in part.curves.items():
                lines = found.setdefault(name, {})
                if len(lines) < _MAX_CURVES and points not in lines.values():
                    lines[run.manifest.run_id] = points
    return {
        f"curve-{name.replace(' ', '-')}": Chart(
            "step", [Series(run_id, points) for run_id, points in lines.items()], named=len(runs) > 1
        )
        for name, lines in found.items()
    }
