"""Metrics of tool calls: names, arguments as JSON, order, and whether to call at all."""

from __future__ import annotations

from typing import Any

import pytest

from stages.data.prediction import Prediction
from stages.evaluate.scoring import ScoreTable
from stages.evaluators.metrics import load_metrics
from stages.evaluators.tool_calls import calls

A = {"name": "a", "arguments": {"x": 1, "y": ["p", {"q": None}]}}
A_WRITTEN_OTHERWISE = {"name": "a", "arguments": {"y": ["p", {"q": None}], "x": 1.0}}
A_OTHER = {"name": "a", "arguments": {"x": "1", "y": ["p", {"q": None}]}}
A_TRUE, A_ONE = {"name": "a", "arguments": {"x": True}}, {"name": "a", "arguments": {"x": 1}}
B = {"name": "b", "arguments": {}}


@pytest.mark.parametrize(
    ("predicted", "expected", "match", "decision", "names", "arguments", "order"),
    [
        ([A], [A_WRITTEN_OTHERWISE], 1, 1, (1, 1), (1, 1), (0, 0)),
        ([A_OTHER], [A], 0, 1, (1, 1), (0, 1), (0, 0)),
        ([B], [A], 0, 1, (0, 1), (0, 0), (0, 0)),
        ([], [A], 0, 0, (0, 1), (0, 0), (0, 0)),
        ([A], [], 0, 0, (0, 1), (0, 0), (0, 0)),
        ([], [], 1, 1, (0, 0), (0, 0), (0, 0)),
        ([A, B], [A, B], 1, 1, (2, 2), (2, 2), (1, 1)),
        ([B, A], [A, B], 0, 1, (2, 2), (2, 2), (0, 1)),
        ([A, A], [A, B], 0, 1, (1, 2), (1, 1), (0, 0)),
        ([A_TRUE], [A_ONE], 0, 1, (1, 1), (0, 1), (0, 0)),
    ],
)  # fmt: skip
def test_calls_are_compared_by_name_arguments_and_order(
    predicted: Any, expected: Any, match: float, decision: float, names: Any, arguments: Any, order: Any
) -> None:
    assert calls.calls_match(predicted, expected) == match
    assert calls.call_decision(predicted, expected) == decision
    assert calls.call_names(predicted, expected) == names
    assert calls.call_arguments(predicted, expected) == arguments
    assert calls.call_order(predicted, expected) == order


def test_scores_are_of_the_calls_and_a_refused_row_is_wrong() -> None:
    names = ["calls_match", "call_arguments", "exact_match"]
    table = ScoreTable(load_metrics(names), ["tuned"], 0.95)
    for number, (found, error) in enumerate([([A], None), ([A_OTHER], None), ([], "too long")]):
        text = "same"
        row = Prediction(
            str(number), "tuned", text, text, 1, 1, error, {}, calls=found, expected_calls=[A] if number < 2 else []
        )
        table.add(row, "tuned")
    found = table.summary("tuned")
    assert found["calls_match"] == pytest.approx(1 / 3)
    assert found["call_arguments"] == 0.5
