"""A second trainer, engine or evaluator is one class and one line of its registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from stages.data.prediction import Prediction
from stages.evaluate.slices import Slices
from stages.evaluators import base as evaluators
from stages.evaluators.base import Offered
from stages.evaluators.metrics import load_metrics
from tests.runner.recipes import problems


def length_ratio(prediction: str, reference: str, *, least: float = 0.0) -> float:
    """The shorter text's share of the longer one, 0 below `least`."""
    shorter, longer = sorted((len(prediction), len(reference)))
    share = shorter / longer if longer else 1.0
    return share if share >= least else 0.0


def _least_is_a_share(args: Mapping[str, Any]) -> tuple[str, str] | None:
    return ("least is above 1", "Lower it.") if args.get("least", 0) > 1 else None


class DummyEvaluator:
    def metrics(self) -> Mapping[str, Offered]:
        return {
            "length_ratio": Offered(f"{__name__}:length_ratio", check=_least_is_a_share),
            "unheard": Offered(f"{__name__}:length_ratio", "no_such_library", "Install the unheard."),
        }

    def other_names(self) -> Mapping[str, str]:
        return {"lengths": "length_ratio"}

    def slices(self) -> Mapping[str, Callable[[str], str]]:
        return {"first_letter": lambda reference: reference[:1]}


@pytest.fixture
def dummy_evaluator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(evaluators.EVALUATORS, "dummy", f"{__name__}:DummyEvaluator")


@pytest.mark.usefixtures("dummy_evaluator")
def test_metrics_of_another_evaluator_are_known_with_their_arguments_and_other_names() -> None:
    keys = {"evaluate.metrics": ["exact_match", "length_ratio"]}
    assert problems(keys) == {}
    misnamed = problems({"evaluate.metrics": ["exact_match", "lengths"]})
    assert misnamed["evaluate.metrics[1]"].hint == "Did you mean length_ratio?"
    unknown = problems({**keys, "evaluate.metric_args": {"length_ratio": {"most": 1}}})
    assert "'most'" in unknown["evaluate.metric_args.length_ratio"].message
    wrong = problems({**keys, "evaluate.metric_args": {"length_ratio": {"least": 2}}})
    assert wrong["evaluate.metric_args.length_ratio"].message == "least is above 1"


@pytest.mark.usefixtures("dummy_evaluator")
def test_a_library_that_another_evaluator_lacks_is_named_before_anything_runs() -> None:
    found = problems({"evaluate.metrics": ["exact_match", "unheard"]})["evaluate.metric_args.unheard"]
    assert "no_such_library" in found.message
    assert found.hint == "Install the unheard."


@pytest.mark.usefixtures("dummy_evaluator")
def test_metrics_and_slices_of_another_evaluator_are_computed() -> None:
    (metric,) = load_metrics(["length_ratio"], {"length_ratio": {"least": 0.5}}).values()
    assert callable(metric)
    assert [metric("ab", "abcd"), metric("a", "abcd")] == [0.5, 0.0]
    slices = Slices(["first_letter"])
    for number, reference in enumerate(["ab", "b", "ac"]):
        slices.add(Prediction(str(number), "base", "", reference, 0, 0, None, {}))
    assert slices.labels() == {"first_letter": ["a", "b", "a"]}
