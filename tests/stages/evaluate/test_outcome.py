"""The verdict on the scores, and what to know before believing it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.pipeline.manifest import Manifest, StageRecord
from runner.pipeline.results import FinishedRun
from stages.evaluate.outcome import outcome


def scores(tuned: float, base: float, p_value: float, **more: Any) -> dict[str, Any]:
    counts = {"n": 100, "num_errors": 0, "num_wrong": 0}
    return {
        "metrics": ["exact_match"],
        "tuned": {**counts, "exact_match": tuned, "exact_match_ci": [tuned - 0.1, tuned + 0.1]},
        "base": {**counts, "exact_match": base},
        "delta_vs_base": {"exact_match": tuned - base, "exact_match_p": p_value},
        "adapter_sha256": "a" * 64,
        "gate": {"passed": True, "missed": []},
        **more,
    }


def outcome_of(metrics: dict[str, Any]) -> Any:
    record = StageRecord(name="evaluate", status="done", metrics=metrics)
    return outcome(FinishedRun(Manifest(run_id="r", recipe="x", status="done", stages=[record]), {}, Path()))


@pytest.mark.parametrize(
    ("tuned", "base", "p_value", "title"),
    [
        (0.8, 0.2, 0.001, "Better than the base model"),
        (0.2, 0.8, 0.001, "Worse than the base model"),
        (0.5, 0.4, 0.3, "Done"),
    ],
)
def test_the_title_says_better_or_worse_only_beyond_chance(
    tuned: float, base: float, p_value: float, title: str
) -> None:
    verdict = outcome_of(scores(tuned, base, p_value)).verdict
    assert verdict.title == title
    assert ("cannot tell from chance" in verdict.text) == (title == "Done")


def test_a_refused_result_says_what_was_missed() -> None:
    verdict = outcome_of(scores(0.3, 0.2, 0.001, gate={"passed": False, "missed": ["exact_match is 0.3"]})).verdict
    assert (verdict.kind, verdict.title) == ("bad", "The quality gate refused the result")
    assert verdict.text.startswith("exact_match is 0.3. Exact match is 0.300 on 100 rows")


def sliced(own: float, base: float, n: int) -> dict[str, Any]:
    return {"topic": {"sports": {"tuned": {"n": n, "exact_match": own}, "base": {"n": n, "exact_match": base}}}}


def test_a_slice_that_got_worse_is_named_when_the_whole_got_better() -> None:
    (remark,) = outcome_of(scores(0.8, 0.2, 0.001, slices=sliced(0.5, 0.7, 12))).remarks
    assert remark == (
        "Exact match got worse where topic is 'sports' (0.700 before, 0.500 now, 12 rows) "
        "although the whole got better."
    )


@pytest.mark.parametrize(
    "metrics",
    [
        scores(0.8, 0.2, 0.001, slices=sliced(0.9, 0.7, 12)),
        scores(0.8, 0.2, 0.001, slices=sliced(0.5, 0.7, 3)),
        scores(0.2, 0.8, 0.001, slices=sliced(0.5, 0.7, 12)),
    ],
    ids=["it got better, too", "a few rows", "the whole got worse"],
)
def test_other_slices_are_not_remarked_on(metrics: dict[str, Any]) -> None:
    assert outcome_of(metrics).remarks == []


def test_a_run_without_scores_has_no_verdict() -> None:
    assert outcome_of({}).verdict is None
