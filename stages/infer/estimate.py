"""What batch inference will take."""

from __future__ import annotations

from collections.abc import Iterator

from runner.cluster.accelerators import accelerator_of
from runner.pipeline.estimates.figure import Computed, Estimate, Known, time, unknown
from runner.pipeline.estimates.rates import measured, never_ran
from runner.text import count_text
from stages.data.row_facts import known_rows
from stages.data.row_lengths import RowLengths, known_lengths
from stages.engines.base import load_engine
from stages.infer.shared import is_shared
from stages.models.known import known_model
from stages.models.speed.generation import START_S, Requests, seconds
from stages.sections.recipe import Recipe

_REQUEST_S = 0.007  # of an endpoint, whatever the request


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
    yield Estimate("predictions", rows * variants, "rows", f"{count_text(rows, 'row')} ({facts.basis}) by {by}")
    yield time(_seconds(known, rows, variants))


def _seconds(known: Known[Recipe], rows: int, variants: int) -> tuple[float, str] | Computed | str:
    """Seconds for so many predictions, the engine's start included, and their basis; or why that is not known."""
    found = measured(known, "infer")
    figures = found.record.metrics if found else {}
    if found is None or not figures.get("rows_per_s") or "engine_start_s" not in figures:
        return _computed(known, rows, variants)
    start, rate = figures["engine_start_s"], figures["rows_per_s"]
    basis = f"{found.basis}: engine ready in {start:.0f} s, then {rate:.3g} predictions/s"
    return start + rows * variants / rate, basis


def _computed(known: Known[Recipe], rows: int, variants: int) -> Computed | str:
    recipe, on, lengths = known.recipe, accelerator_of(known.recipe, "infer"), known_lengths(known, "test")
    if known_model(known).architecture is None or on is None or lengths is None or not rows:
        return never_ran("infer")
    most = float(load_engine(recipe).batch_limits(recipe).answer)
    answers = [min(lengths.answer, most), *([most] if variants == 2 else [])]  # a base model need not end
    work = sum(_answering(known, rows, answer, lengths) for answer in answers)
    start = START_S[recipe.cluster.accelerator]
    basis = (
        f"computed, until a run has measured it: {rows * variants / work:.3g} predictions/s of "
        f"{' and '.join(f'{answer:.0f}' for answer in answers)} tokens after {lengths.prompt:.0f} ({lengths.basis}) on "
        f"{on.name}, and {start:.0f} s until the engine is ready"
    )
    return Computed(work + start, basis)


def _answering(known: Known[Recipe], rows: int, answer: float, lengths: RowLengths) -> float:
    """Seconds for one answer to each row by all engines together."""
    recipe, model, on = known.recipe, known_model(known).architecture, accelerator_of(known.recipe, "infer")
    assert model is not None
    assert on is not None
    engine = load_engine(recipe)
    limits, ranks = engine.batch_limits(recipe), engine.ranks(recipe.infer.engine_kwargs)
    shared = lengths.shared // limits.block * limits.block if limits.block else 0.0
    asked = Requests(-(-rows // recipe.infer.concurrency), lengths.prompt, answer, shared)
    over_http = rows * _REQUEST_S if is_shared(recipe) else 0.0
    return seconds(model, on, asked, limits.at_once, ranks) + over_http
