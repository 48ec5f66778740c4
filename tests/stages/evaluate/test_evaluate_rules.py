"""Metrics, the gate and the objective."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.pipeline.manifest import Manifest
from stages.evaluators import metrics
from tests.runner.recipes import problems

pytestmark = pytest.mark.usefixtures("fake_stages")


def test_an_unknown_metric_is_refused_with_the_nearest() -> None:
    found = problems({"evaluate.metrics": ["exact_match", "exact_mach"]})
    assert list(found) == ["evaluate.metrics[1]"]
    assert found["evaluate.metrics[1]"].hint == "Did you mean exact_match?"


def test_the_objective_is_one_of_the_metrics() -> None:
    found = problems({"evaluate.objective": "exact_mach"})
    assert found["evaluate.objective"].hint == "Did you mean exact_match?"
    found = problems({"evaluate.metrics": ["exact_match"], "evaluate.objective": "exact_match_normalized"})
    assert found["evaluate.objective"].hint == "Add exact_match_normalized to evaluate.metrics."


@pytest.mark.parametrize("text", ["0.6", "=>0.6", ">= sixty", ">=1.2.3", "~0.5", ""])
def test_a_requirement_is_a_comparison(text: str) -> None:
    found = problems({"evaluate.require": {"exact_match": text}})
    assert found["evaluate.require.exact_match"].message == "is not a comparison"


@pytest.mark.parametrize(
    ("name", "text"),
    [("exact_match", ">=60"), ("exact_match", ">1"), ("exact_match", "<0"), ("exact_match", "==2"),
     ("delta_vs_base", "<=-1.5"), ("base.exact_match", "<0")],
)  # fmt: skip
def test_a_requirement_that_can_never_hold_is_refused(name: str, text: str) -> None:
    found = problems({"evaluate.require": {name: text}})
    assert "can never hold" in found[f"evaluate.require.{name}"].message


def test_a_requirement_names_what_is_computed() -> None:
    found = problems({"evaluate.require": {"exact_mach": ">=0.6", "base.rouge": ">=0.1"}})
    assert found["evaluate.require.exact_mach"].hint == "Did you mean exact_match?"
    assert "'rouge', which is not computed" in found["evaluate.require.base.rouge"].message


@pytest.mark.parametrize("name", ["delta_vs_base", "base.exact_match"])
def test_a_comparison_with_the_base_model_needs_its_score(name: str) -> None:
    found = problems({"evaluate.require": {name: ">=0.1"}, "evaluate.compare_base": False})
    assert list(found) == [f"evaluate.require.{name}"]
    assert found[f"evaluate.require.{name}"].hint == "Set evaluate.compare_base=true."


def test_requirements_that_can_hold_are_fine() -> None:
    require = {
        "exact_match": " >= 0.60 ",
        "delta_vs_base": ">=-0.1",
        "base.exact_match": "<1",
        "exact_match_normalized": "==1",
    }
    assert problems({"evaluate.require": require}) == {}


def test_a_difference_may_be_of_any_metric() -> None:
    changes = {"evaluate.require": {"delta_vs_base.parse_rate": ">=0.1"}, "evaluate.metrics": ["exact_match"]}
    assert problems(changes)["evaluate.require.delta_vs_base.parse_rate"].hint == "Add parse_rate to evaluate.metrics."
    changes["evaluate.metrics"] = ["exact_match", "parse_rate"]
    assert problems(changes) == {}


def test_a_difference_to_another_run_needs_its_id() -> None:
    changes: dict[str, object] = {"evaluate.require": {"delta_vs_run": ">=0"}}
    assert problems(changes)["evaluate.require.delta_vs_run"].hint == "Set it to a run's id."
    named = problems({**changes, "evaluate.compare_run": "20260101-000000-abcdef"})
    assert list(named) == ["evaluate.compare_run"]
    assert "there is no run '20260101-000000-abcdef'" in named["evaluate.compare_run"].message


def test_a_run_to_compare_with_is_there_and_has_predicted(tmp_path: Path) -> None:
    changes: dict[str, object] = {"storage.root": str(tmp_path), "evaluate.compare_run": "20260101-000000-abcdef"}
    manifest = Manifest(run_id="20260101-000000-abcdef", recipe="mine")
    manifest.save(tmp_path / "mine" / manifest.run_id)
    assert "has no predictions" in problems(changes)["evaluate.compare_run"].message
    changes["evaluate.compare_run"] = "20260101-000000-abcedf"
    assert problems(changes)["evaluate.compare_run"].hint == "Did you mean 20260101-000000-abcdef?"
    assert problems({**changes, "cluster.address": "auto"}) == {}  # whose runs may be on another machine


def test_a_slice_is_a_column_or_what_evaluators_tell_apart() -> None:
    assert problems({"evaluate.slices": ["function", "length", "input"]}) == {}
    found = problems({"evaluate.slices": ["length", "imput"]})
    assert list(found) == ["evaluate.slices[1]"]
    assert found["evaluate.slices[1]"].hint == "Did you mean input?"
    assert "input, instruction, output" in found["evaluate.slices[1]"].message
    assert problems({"evaluate.slices": ["imput"], "dataset.source": "s3://bucket/rows"}) == {}  # ingest looks


@pytest.mark.parametrize(
    ("metric", "module", "pip"),
    [("rouge", "rouge_score", "rouge-score"), ("bleu", "sacrebleu", "sacrebleu"), ("json_schema", "jsonschema", "")],
)
def test_a_metric_whose_package_is_missing_leads_to_the_line_that_installs_it(
    metric: str, module: str, pip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "installed", lambda name: name != module)
    found = problems({"evaluate.metrics": ["exact_match", metric]})
    assert list(found) == ["evaluate.metrics[1]"]
    assert f"needs {module}" in found["evaluate.metrics[1]"].message
    assert found["evaluate.metrics[1]"].hint.endswith(f"pip install {pip or module}")


def test_arguments_of_metrics_are_checked() -> None:
    found = problems({"evaluate.metrics": ["exact_match", "regex"]})
    assert "'pattern'" in found["evaluate.metric_args.regex"].message
    found = problems({"evaluate.metric_args": {"rouge": {"kind": "rouge1"}}})
    assert found["evaluate.metric_args.rouge"].hint == "Add rouge to evaluate.metrics."
    fine = {"evaluate.metrics": ["exact_match", "regex"], "evaluate.metric_args": {"regex": {"pattern": "a|b"}}}
    assert problems(fine) == {}
