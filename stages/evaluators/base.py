"""What an evaluator is, and which there are.

An evaluator is a folder here: the metrics that it offers, as functions or classes in modules that are imported when a
metric is computed, and the parts of a test set that it can tell apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Literal, Protocol, runtime_checkable

from stages.data.answer import Call
from stages.data.prediction import Prediction

EVALUATORS = {
    "text_match": "stages.evaluators.text_match.evaluator:TextMatch",
    "meaning": "stages.evaluators.meaning.evaluator:MeaningMatch",
    "tool_calls": "stages.evaluators.tool_calls.evaluator:ToolCalls",
}


@runtime_checkable
class CorpusMetric(Protocol):
    """A score of sums over the rows that is neither a mean nor a ratio."""

    def sums(self, prediction: str, reference: str) -> Sequence[float]:
        """Numbers of one row, as many for every row."""

    def score(self, sums: Sequence[float]) -> float:
        """The score in [0, 1] of the rows' summed numbers."""


@dataclass(frozen=True)
class CallMetric:
    """A function of the tool calls, predicted and expected, in place of the texts."""

    function: Callable[[Sequence[Call], Sequence[Call]], float | tuple[float, float]]


Metric = Callable[[str, str], float | tuple[float, float]] | CorpusMetric | CallMetric
"""A function of (prediction, reference) returns a number in [0, 1], of which the mean is the score, or a pair (hits,
chances), of which the sums are divided."""


def judged(metric: Metric, row: Prediction) -> float | tuple[float, float] | None:
    """What the metric says of a single row; None where it judges the rows together."""
    if isinstance(metric, CallMetric):
        return metric.function(row.calls, row.expected_calls)
    return None if isinstance(metric, CorpusMetric) else metric(row.prediction, row.reference)


Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Offered:
    """A metric that an evaluator offers.

    target: "module:name" of a function (prediction, reference, **arguments), or of a class whose objects are metrics
    and which is called with the arguments. library: the module that it needs besides this package, "" for none.
    of: what it is given, the texts or the tool calls. install: what pip calls it. check: why arguments that the
    signature accepts are wrong, as (what, what to do).
    """

    target: str
    library: str = ""
    of: Literal["texts", "calls"] = "texts"
    install: str = ""
    check: Callable[[Arguments], tuple[str, str] | None] | None = None


class Evaluator(Protocol):
    """What the evaluate stage asks an evaluator for. All of it is light: libraries are imported by a metric."""

    def metrics(self) -> Mapping[str, Offered]:
        """The metrics by the names that `evaluate.metrics` has for them."""

    def other_names(self) -> Mapping[str, str]:
        """What other tools call a metric -> its name here."""

    def slices(self) -> Mapping[str, Callable[[str], str]]:
        """Parts of a test set by name: functions from a row's reference to the part that it belongs to."""


@cache
def load_evaluator(name: str) -> Evaluator:
    """The evaluator of that name in EVALUATORS."""
    module, _, member = EVALUATORS[name].partition(":")
    evaluator: Evaluator = getattr(import_module(module), member)()
    return evaluator


def offered_metrics() -> dict[str, Offered]:
    """The metrics of all evaluators by name."""
    return {name: metric for each in EVALUATORS for name, metric in load_evaluator(each).metrics().items()}


def other_names() -> dict[str, str]:
    """What other tools call a metric -> its name here, of all evaluators."""
    return {other: name for each in EVALUATORS for other, name in load_evaluator(each).other_names().items()}


def offered_slices() -> dict[str, Callable[[str], str]]:
    """The parts of a test set that evaluators tell apart, by name."""
    return {name: part_of for each in EVALUATORS for name, part_of in load_evaluator(each).slices().items()}
