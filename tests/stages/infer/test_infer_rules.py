"""How answers are sampled: one text a row, and one form."""

from __future__ import annotations

from typing import Any

import pytest

from tests.runner.recipes import problems

pytestmark = pytest.mark.usefixtures("fake_stages")
FORM = "infer.sampling.structured_outputs"


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"regex": "a+", "choice": ["a"]}, "has regex and choice"),
        ({"disable_any_whitespace": False}, "has none"),
        ({}, "has none"),
        ({"json": None}, "has none"),
    ],
)
def test_answers_have_exactly_one_form(form: dict[str, Any], message: str) -> None:
    found = problems({FORM: form})
    assert list(found) == [FORM]
    assert message in found[FORM].message


@pytest.mark.parametrize("choice", [[True, False], []])
def test_a_choice_is_between_texts(choice: list[Any]) -> None:
    assert "must be a list of texts" in problems({FORM: {"choice": choice}})[f"{FORM}.choice"].message


@pytest.mark.parametrize(("name", "text"), [("json", "{"), ("structural_tag", "not json")])
def test_a_form_that_is_json_as_a_text_is_parsed(name: str, text: str) -> None:
    assert "is not valid JSON" in problems({FORM: {name: text}})[f"{FORM}.{name}"].message


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("disable_any_whitespace", True, "structured_outputs_config.disable_any_whitespace"),
        ("disable_additional_properties", True, "structured_outputs_config.disable_additional_properties"),
        ("whitespace_pattern", " ?", "Remove it"),
    ],
)
def test_what_vllm_would_ignore_in_a_form_is_refused(name: str, value: Any, hint: str) -> None:
    found = problems({FORM: {"json": {"type": "object"}, name: value}})
    assert list(found) == [f"{FORM}.{name}"]
    assert hint in (found[f"{FORM}.{name}"].hint or "")


def test_a_form_that_is_not_a_mapping_is_refused() -> None:
    assert "a mapping" in problems({FORM: "a+"})[FORM].message


def test_a_backend_that_vllm_does_not_have_is_refused() -> None:
    key = "infer.engine_kwargs.structured_outputs_config.backend"
    assert problems({key: "xgramar"})[key].hint == "Did you mean xgrammar?"


def test_several_answers_to_a_row_or_none_are_refused() -> None:
    found = problems({"infer.sampling.n": 2, "infer.sampling.detokenize": False, "infer.sampling.ignore_eos": True})
    assert list(found) == ["infer.sampling.n", "infer.sampling.detokenize", "infer.sampling.ignore_eos"]
    assert problems({"infer.sampling.n": 1, "infer.sampling.detokenize": True}) == {}
