"""Metrics by name, meaning representations, and metrics of text."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import RunnerError
from stages.data.generated.grammar import GrammarSpec, generate
from stages.data.prediction import Prediction
from stages.evaluators import metrics
from stages.evaluators.base import CorpusMetric, Offered, judged, offered_metrics
from stages.evaluators.meaning.representation import (
    Meaning,
    attribute_f1,
    attribute_precision,
    attribute_recall,
    exact_match_unordered,
    function_accuracy,
    parse,
    parse_rate,
)
from stages.evaluators.metrics import (
    known_metrics,
    load_metrics,
    wrong_arguments,
)
from stages.evaluators.text_match.evaluator import METRICS
from stages.evaluators.text_match.exact import exact_match, exact_match_normalized
from stages.evaluators.text_match.text_metrics import Bleu, json_schema, regex, rouge

MEANING = "inform(name[Dirt: Showdown], esrb[E 10+ (for Everyone 10 and Older)], platforms[PC, Xbox])"


ARGS = {"regex": {"pattern": "f.*"}, "json_schema": {"schema": {"type": "object", "required": ["a"]}}}


def test_every_builtin_metric_can_be_loaded_and_judges_an_empty_answer() -> None:
    metrics = load_metrics(offered_metrics(), ARGS)
    assert set(metrics) == set(offered_metrics())
    for metric in metrics.values():
        row = Prediction("1", "base", "", "f(a[x])", 1, 1, None, {}, expected_calls=[{"name": "f", "arguments": {}}])
        found = judged(metric, row)
        found = metric.score(metric.sums("", "f(a[x])")) if isinstance(metric, CorpusMetric) else found
        assert found in (0, (0, 0), (0, 1))


def test_arguments_that_a_metric_does_not_take_are_explained() -> None:
    with pytest.raises(RunnerError, match=r"evaluate\.metric_args\.rouge: .*'stemmer'"):
        load_metrics(["rouge"], {"rouge": {"stemmer": True}})
    assert "'pattern'" in (wrong_arguments("regex", {}) or ("",))[0]
    assert "is not a regular expression" in (wrong_arguments("regex", {"pattern": "("}) or ("",))[0]
    assert wrong_arguments("bleu", {"tokenize": "char"}) is None


def test_a_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "installed", lambda name: False)
    message, hint = metrics.missing_package("bleu") or ("", "")
    assert message == "needs sacrebleu, which is not installed here"
    assert hint.endswith("pip install sacrebleu")
    assert wrong_arguments("bleu", {}) is None  # which are told once it is there


def test_rouge_is_the_f_measure_of_the_longest_common_subsequence() -> None:
    assert rouge("a b x", "a b c") == pytest.approx(2 / 3)
    assert rouge("b a", "a b", kind="rouge1") == 1


def test_bleu_of_the_summed_rows_is_the_corpus_bleu() -> None:
    from sacrebleu.metrics.bleu import BLEU

    pairs = [("the cat sat on the mat", "the cat sat on a mat"), ("a dog", "a dog barks loudly at the cat")]
    bleu = Bleu()
    sums = [sum(column) for column in zip(*(bleu.sums(*pair) for pair in pairs), strict=True)]
    expected = BLEU().corpus_score([one for one, _ in pairs], [[other for _, other in pairs]]).score
    assert bleu.score(sums) == pytest.approx(expected / 100)


def test_json_schema_wants_one_valid_document() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    answers = ['{"a": 1}', '{"a": "1"}', "[1]", '{"a": 1} and more', "no JSON"]
    assert [json_schema(answer, "", schema=schema) for answer in answers] == [1, 0, 0, 0, 0]
    with pytest.raises(RunnerError, match="is not a JSON Schema"):
        json_schema("1", "", schema={"type": "strange"})


def test_regex_matches_the_whole_answer() -> None:
    assert [regex(answer, "", pattern=r"yes|no") for answer in ("yes", "no", "yes!")] == [1, 1, 0]


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
    assert found == {"length": "builtins:len", "exact_match": METRICS["exact_match"].target}


def test_metric_that_cannot_be_imported_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "broken", Offered("stages.no_such_module:function"))
    with pytest.raises(RunnerError, match=r"'broken' .* cannot be loaded"):
        load_metrics(["broken"])


def test_exact_match_is_strict_and_normalized_forgives_white_space() -> None:
    assert exact_match("a b", "a b") == 1
    assert exact_match("a b", "a b ") == exact_match("a b", "A b") == 0
    assert exact_match_normalized(" a \n b", "a b") == 1
    assert exact_match_normalized("ab", "a b") == 0


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
def test_other_text_is_not_a_meaning(text: str) -> None:
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


def _nested(parts: tuple[str, str, str, str]) -> str:
    before, brackets, inner, after = parts
    return f"{before}{brackets[0]}{inner}{brackets[1]}{after}"


NAMES = st.from_regex(r"\A[a-z_]{1,12}\Z")
# Text without brackets, and values that nest balanced ones, with commas anywhere.
PLAIN = st.text(st.characters(exclude_characters="[]()", exclude_categories=("Cs",)), max_size=12)
VALUES = st.recursive(PLAIN, lambda inner: st.tuples(PLAIN, st.sampled_from(["()", "[]"]), inner, PLAIN).map(_nested))


@settings(max_examples=30)
@given(st.builds(Meaning, NAMES, st.lists(st.tuples(NAMES, st.none() | VALUES), max_size=6).map(tuple)))
def test_every_meaning_is_printed_and_parsed_back(meaning: Meaning) -> None:
    assert parse(str(meaning)) == meaning
    assert attribute_f1(str(meaning), str(meaning)) == (2 * len_pairs(meaning), 2 * len_pairs(meaning))


def len_pairs(meaning: Meaning) -> float:
    return attribute_recall("", str(meaning))[1]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_every_answer_of_the_grammar_is_parsed_and_printed_back(seed: int) -> None:
    for row in generate(GrammarSpec(train=30, seed=seed), "train"):
        assert str(parse(row["output"])) == row["output"]


@pytest.mark.skipif("VIGGO_DIR" not in os.environ, reason="VIGGO_DIR names no folder with ViGGO's train and val rows")
def test_every_output_of_viggo_is_parsed_and_printed_back() -> None:
    outputs = [
        json.loads(line)["output"]
        for split in ("train", "val")
        for line in (Path(os.environ["VIGGO_DIR"]) / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert len(outputs) == 5817
    assert [text for text in outputs if str(parse(text)) != text] == []
