"""The data's part of the report: rows of each split, their lengths, and remarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runner.pipeline.results import FinishedRun, Part

_TEMPLATES = Path(__file__).parent / "templates"


def page(run: FinishedRun) -> Part:
    metrics = run.metrics("ingest")
    rows = metrics.get("rows") or {}
    if not rows:
        return Part()
    found: list[dict[str, Any]] = [
        {"split": split, "rows": f"{count:,}", "skipped": f"{(metrics.get('skipped') or {}).get(split, 0):,}",
         "chars": spread((metrics.get("chars") or {}).get(split) or {})}
        for split, count in rows.items()
    ]  # fmt: skip
    percentiles = list(dict.fromkeys(name for each in found for name in each["chars"]))
    facts = {"splits": found, "percentiles": percentiles, "remarks": metrics.get("remarks") or []}
    return Part(order=10, templates=_TEMPLATES, facts=facts, sections=[("data", "Data")])


def spread(lengths: dict[str, Any]) -> dict[str, str]:
    """Percentiles by what they are called: {"50 %": "120", ..., "longest": "12,000"}."""
    return {name if name == "longest" else f"{name} %": f"{value:,}" for name, value in lengths.items()}
