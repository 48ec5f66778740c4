"""Metrics of the tool calls in an answer against those expected, each a list of `{name, arguments}` in order.

Arguments are compared as JSON: the order of keys and white space are nothing, 1 and 1.0 are equal, 1 and "1" are not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from stages.data.answer import Call

Calls = Sequence[Call]


def calls_match(predicted: Calls, expected: Calls) -> float:
    """1 for the same calls in the same order; also where there are none and none was expected."""
    return float(len(predicted) == len(expected) and all(map(_same, predicted, expected)))


def call_decision(predicted: Calls, expected: Calls) -> float:
    """1 where the answer calls something and was to, or calls nothing and was not to."""
    return float(bool(predicted) == bool(expected))


def call_names(predicted: Calls, expected: Calls) -> tuple[float, float]:
    """Calls whose name was expected, of those predicted or expected, whichever are more."""
    found, wanted = _names(predicted), _names(expected)
    return (found & wanted).total(), max(found.total(), wanted.total())


def call_arguments(predicted: Calls, expected: Calls) -> tuple[float, float]:
    """Of the calls whose name was expected, those with the arguments of an expected call of that name."""
    left, hits = list(expected), 0
    for call in predicted:
        at = next((index for index, each in enumerate(left) if _same(call, each)), None)
        if at is not None:
            hits += 1
            del left[at]
    return hits, (_names(predicted) & _names(expected)).total()


def call_order(predicted: Calls, expected: Calls) -> tuple[float, float]:
    """Of the answers with the names of several expected calls, those that have them in the expected order."""
    if len(expected) < 2 or _names(predicted) != _names(expected):
        return 0, 0
    return float([call["name"] for call in predicted] == [call["name"] for call in expected]), 1


def _names(calls: Calls) -> Counter[str]:
    return Counter(call["name"] for call in calls)


def _same(one: Call, other: Call) -> bool:
    return one["name"] == other["name"] and _equal(one["arguments"], other["arguments"])


def _equal(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal; true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)
