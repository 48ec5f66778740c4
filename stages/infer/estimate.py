"""What batch inference will take."""

from __future__ import annotations

from collections.abc import Iterator

from runner.pipeline.estimates.figure import Estimate, Known, time, unknown
from runner.pipeline.estimates.rates import measured, never_ran
from stages.data.row_facts import known_rows
from stages.engines.base import load_engine
from stages.sections.recipe import Recipe


def estimate(known: Known[Recipe]) -> Iterator[Estimate]:
    """Memory of an engine, predictions and time."""
    yield from load_engine(known.recipe).batch_estimate(known)
    facts, adapted = known_rows(known), "publish" in known.recipe.pipeline
    rows = facts.counts["test"]
    if rows is None:
        yield unknown("predictions", "rows", facts.basis)
        yield unknown("time", "s", facts.basis)
        return
    variants = 2 if adapted and known.recipe.evaluate.compare_base else 1
    by = "adapter and base model" if variants == 2 else "one model"
    yield Estimate("predictions", rows * variants, "rows", f"{rows:,} rows ({facts.basis}) by {by}")
    yield time(_seconds(known, rows * variants))


def _seconds(known: Known[Recipe], num_predictions: int) -> tuple[float, str] | str:
    """Seconds for so many predictions, the engine's start included, and their basis; or why that is not known."""
    found = measured(known, "infer")
    figures = found.record.metrics if found else {}
    if found is None or not figures.get("rows_per_s") or "engine_start_s" not in figures:
        return never_ran("infer")
    start, rate = figures["engine_start_s"], figures["rows_per_s"]
    basis = f"{found.basis}: engine ready in {start:.0f} s, then {rate:.3g} predictions/s"
    return start + num_predictions / rate, basis
