"""The training log: curves and figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner.pipeline.manifest import StageRecord
from runner.report.pages import charts
from runner.storage.artifact import Artifact
from runner.storage.atomic import write_text
from runner.storage.digest import digest_file, digest_json

_FIGURES = {
    "num_steps": "steps",
    "num_samples": "rows",
    "num_workers": "workers",
    "train_loss": "mean loss",
    "loss_first": "first loss",
    "loss_last": "last loss",
    "samples_per_s": "rows per second",
    "train_runtime_s": "seconds",
    "resumed_at_step": "resumed at step",
}


def training(log: Artifact | None, record: StageRecord | None, drawings: Path) -> dict[str, Any] | None:
    """`{loss, rate, figures}`: two SVG drawings ("" where there are too few points) and (name, text) pairs.

    drawings: folder that keeps them for the next page of the same curves; loading matplotlib takes half a second.
    """
    if log is None or "://" in log.uri:
        return None
    points: list[dict[str, Any]] = []
    with suppress(OSError, ValueError):
        lines = (log.path / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()
        points = [json.loads(line) for line in lines]
    loss, eval_loss, rate = (_series(points, name) for name in ("loss", "eval_loss", "lr"))
    figures = _figures(record.metrics if record else {})
    if len(loss) < 2:
        return {"loss": "", "rate": "", "figures": figures} if figures else None
    drawn = _kept(drawings, "loss", [loss, eval_loss], lambda: charts.loss_curve(loss, eval_loss))
    rates = _kept(drawings, "rate", [rate], lambda: charts.rate_curve(rate)) if len(rate) > 1 else ""
    return {"loss": drawn, "rate": rates, "figures": figures}


def _kept(folder: Path, name: str, points: list[Any], draw: Callable[[], str]) -> str:
    """The drawing of these points by today's code, drawn now or before."""
    path = folder / f"{name}-{digest_json([digest_file(Path(charts.__file__)), points])[:16]}.svg"
    with suppress(OSError):
        return path.read_text(encoding="utf-8")
    svg = draw()
    write_text(path, svg)
    return svg


def _series(points: list[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(point["current_steps"], point[name]) for point in points if isinstance(point.get(name), int | float)]


def _figures(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    for name, label in _FIGURES.items():
        value = metrics.get(name)
        if isinstance(value, int | float):
            found.append((label, f"{value:,}" if isinstance(value, int) else f"{value:,.3g}"))
    return found
