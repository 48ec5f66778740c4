"""Metrics by name, meaning representations, and the statistics against known values."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from runner.errors import RunnerError
from stages import metrics
from stages.meaning import (
    Meaning,
    attribute_f1,
    attribute_precision,
    attribute_recall,
    exact_match_unordered,
    function_accuracy,
    parse,
    parse_rate,
)
from stages.metrics import (
    BUILTIN,
    exact_match,
    exact_match_normalized,
    known_metrics,
    load_metrics,
    mcnemar_exact,
    wilson_interval,
)

MEANING = "inform(name[Dirt: Showdown], esrb[E 10+ (for Everyone 10 and Older)], platforms[PC, Xbox])"


def test_every_builtin_metric_can_be_loaded() -> None:
    assert set(load_metrics(BUILTIN)) == set(BUILTIN)


def test_unknown_metric_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(RunnerError, match="no metric 'exact_macth'") as refusal:
        known_metrics(["exact_match", "exact_macth"])
    assert "Did you mean exact_match?" in refusal.value.hint


def test_packages_add_metrics_but_cannot_replace_builtin_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        SimpleNamespace(name="length", value="builtins:len"),
        SimpleNamespace(name="exact_match", value="os:abort"),
    ]
    monkeypatch.setattr(metrics, "entry_points", lambda group: points)
    metrics._third_party.cache_clear()
    try:
        found = known_metrics(["length", "exact_match"])
    finally:
        metrics._third_party.cache_clear()
    assert found == {"length": "builtins:len", "exact_match": BUILTIN["exact_match"]}


def test_metric_that_cannot_be_imported_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUILTIN, "broken", "stages.no_such_module:function")
    with pytest.raises(RunnerError, match=r"'broken' .* cannot be loaded"):
        load_metrics(["broken"])


def test_exact_match_is_strict_and_normalized_forgives_white_space() -> None:
    assert exact_match("a b", "a b") == 1
    assert exact_match("a b", "a b ") == exact_match("a b", "A b") == 0
    assert exact_match_normalized(" a \n b", "a b") == 1
    assert exact_match_normalized("ab", "a b") == 0


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (72, 100, 0.6251, 0.7986), (5, 10, 0.2366, 0.7634)],
)
def test_wilson_interval_has_published_values(successes: int, count: int, low: float, high: float) -> None:
    assert wilson_interval(successes, count, 0.95) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_of_nothing_says_nothing() -> None:
    assert wilson_interval(0, 0, 0.95) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("gained", "lost", "p_value"), [(0, 0, 1.0), (5, 0, 0.0625), (0, 5, 0.0625), (8, 2, 0.109375), (3, 3, 1.0)]
)
def test_mcnemar_is_the_two_sided_binomial_test(gained: int, lost: int, p_value: float) -> None:
    assert mcnemar_exact(gained, lost) == pytest.approx(p_value)


def test_mcnemar_takes_thousands_of_pairs() -> None:
    assert mcnemar_exact(3000, 2900) == pytest.approx(0.1975, abs=1e-3)
    assert mcnemar_exact(5000, 0) == 0.0


def test_meaning_is_parsed_into_function_and_attributes_in_order() -> None:
    assert parse(MEANING) == Meaning(
        "inform",
        (
            ("name", "Dirt: Showdown"),
            ("esrb", "E 10+ (for Everyone 10 and Older)"),
            ("platforms", "PC, Xbox"),
        ),
    )
    assert parse("request_attribute(esrb[])") == Meaning("request_attribute", (("esrb", ""),))
    assert parse("request(esrb)") == Meaning("request", (("esrb", None),))
    assert parse("suggest()") == Meaning("suggest", ())


def test_white_space_around_the_parts_is_ignored() -> None:
    assert str(parse(" inform( name[A],\n esrb[E] ) ")) == "inform(name[A], esrb[E])"


@pytest.mark.parametrize(
    "text",
    [
        "", "inform", "inform(", "inform)", "inform(name[A]", "inform(name[A])) ", "inform(name[A)])", "(name[A])",
        "inform(name[A] esrb[E])", "inform(name[A],)", "inform(name[A]]])", "It is a game (from 1998).",
        "inform(name[A]) and more", "inform(name[A], esrb[E)]",
    ],
)  # fmt: skip
def test_other_text_is_no_meaning(text: str) -> None:
    assert parse(text) is None
    assert parse_rate(text, MEANING) == function_accuracy(text, MEANING) == 0


def test_function_accuracy_looks_at_the_function_alone() -> None:
    assert function_accuracy("inform(x[1])", MEANING) == 1
    assert function_accuracy("confirm(name[Dirt: Showdown])", MEANING) == 0


def test_unordered_match_forgives_the_order_of_attributes_and_values() -> None:
    assert exact_match_unordered("f(b[2, 1], a[x])", "f(a[x], b[1, 2])") == 1
    assert exact_match_unordered("f(a[x], a[x])", "f(a[x])") == 0
    assert exact_match_unordered("g(a[x])", "f(a[x])") == 0
    assert exact_match_unordered("plain text", "plain text") == 1
    assert exact_match_unordered("plain text", "f(a[x])") == 0


def test_attributes_are_counted_as_pairs_of_name_and_value() -> None:
    prediction, reference = "f(a[x], b[1, 2, 3], d[9])", "f(a[x], b[2, 1], c[7])"
    assert attribute_precision(prediction, reference) == (3, 5)
    assert attribute_recall(prediction, reference) == (3, 4)
    assert attribute_f1(prediction, reference) == (6, 9)


def test_an_answer_that_does_not_parse_has_no_attributes() -> None:
    assert attribute_precision("nonsense", "f(a[x])") == (0, 0)
    assert attribute_recall("nonsense", "f(a[x])") == (0, 1)
    assert attribute_f1("", "f(a[x])") == (0, 1)


@pytest.mark.skipif("VIGGO_DIR" not in os.environ, reason="VIGGO_DIR names no folder with ViGGO's train and val rows")
def test_every_output_of_viggo_is_parsed_and_printed_back() -> None:
    outputs = [
        json.loads(line)["output"]
        for split in ("train", "val")
        for line in (Path(os.environ["VIGGO_DIR"]) / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert len(outputs) == 5817
    assert [text for text in outputs if str(parse(text)) != text] == []
