"""Batch inference for the report: its throughput."""

from __future__ import annotations

from runner.pipeline.results import Card, FinishedRun, Part
from runner.text import count_text, duration_text


def page(run: FinishedRun) -> Part:
    metrics = run.metrics("infer")
    if not metrics.get("output_tokens_per_s"):
        return Part()
    ready = f", engine ready in {duration_text(metrics['engine_start_s'])}" if "engine_start_s" in metrics else ""
    more = f"{count_text(metrics.get('num_predictions', 0), 'prediction')}{ready}"
    return Part(cards=[Card("batch inference", f"{metrics['output_tokens_per_s']:,.0f} tokens/s", more)])
