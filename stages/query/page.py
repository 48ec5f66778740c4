"""The endpoint's answers for the report: models side by side, and their latency."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.pipeline.results import Card, FinishedRun, Part
from runner.text import duration_text

_TEMPLATES = Path(__file__).parent / "templates"


def page(run: FinishedRun) -> Part:
    metrics = run.metrics("query")
    answers = list(_answers(metrics))
    return Part(
        order=60,
        templates=_TEMPLATES if answers else None,
        facts={"answers": answers},
        sections=[("answers", "Answers")] if answers else [],
        cards=list(_cards(metrics)),
        figures={"first token in s": metrics["first_token_s"]} if "first_token_s" in metrics else {},
    )


def _answers(query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What the endpoint's models answered to the first row: `{model, first_token_s, tokens_per_s, text, matches_batch}`
    of base model, adapter, and the adapters of other runs."""
    asked = [query.get("base"), query, *(query.get("others") or {}).values()]
    seen: set[str] = set()
    for answer in asked:
        if answer and answer.get("model") and answer["model"] not in seen:
            seen.add(answer["model"])
            names = ("model", "first_token_s", "tokens_per_s", "text", "matches_batch")
            yield {name: answer.get(name) for name in names}


def _cards(query: Mapping[str, Any]) -> Iterator[Card]:
    base = query.get("base", {})
    adapter = query if query.get("model") != base.get("model") else {}
    for label, answer in (("adapter", adapter), ("base model", base)):
        if "first_token_s" in answer:
            more = f"{answer['tokens_per_s']:.0f} tokens/s streamed"
            yield Card(f"first token, {label}", duration_text(answer["first_token_s"]), more)
