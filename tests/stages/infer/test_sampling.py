"""One set of sampling parameters, for batch inference and for requests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stages.infer.sampling import request_sampling, sampling_params
from stages.sections.recipe import Recipe

SCHEMA = {"type": "object", "properties": {}, "required": ["name"]}


def with_sampling(recipe: Recipe, sampling: dict[str, Any]) -> Recipe:
    return recipe.model_copy(update={"infer": recipe.infer.model_copy(update={"sampling": sampling})})


def test_random_sampling_has_the_recipes_seed_and_greedy_has_none(quickstart: Recipe) -> None:
    for asked in (sampling_params, request_sampling):
        assert "seed" not in asked(quickstart)
        assert asked(with_sampling(quickstart, {"temperature": 0.7}))["seed"] == quickstart.seed
        assert asked(with_sampling(quickstart, {"temperature": 0.7, "seed": 1}))["seed"] == 1


@pytest.mark.parametrize("form", [{"regex": "a+"}, {"choice": ["a", "b"]}, {"grammar": 'root ::= "a"'}])
def test_a_form_is_handed_on_as_it_is(quickstart: Recipe, form: dict[str, Any]) -> None:
    recipe = with_sampling(quickstart, {"temperature": 0.0, "structured_outputs": form})
    assert sampling_params(recipe)["structured_outputs"] == request_sampling(recipe)["structured_outputs"] == form


def test_a_json_schema_travels_as_text(quickstart: Recipe) -> None:
    form = {"json": SCHEMA, "disable_any_whitespace": False}
    recipe = with_sampling(quickstart, {"temperature": 0.0, "structured_outputs": form})
    sent = sampling_params(recipe)["structured_outputs"]
    assert json.loads(sent["json"]) == SCHEMA
    assert sent["disable_any_whitespace"] is False
    assert request_sampling(recipe)["structured_outputs"] == sent
    assert recipe.infer.sampling["structured_outputs"]["json"] == SCHEMA


def test_requests_leave_out_what_changes_no_text_and_has_another_meaning_there(quickstart: Recipe) -> None:
    sampling = {"temperature": 0.0, "logprobs": 3, "flat_logprobs": True, "min_tokens": 2, "extra_args": {"a": 1}}
    sent = request_sampling(with_sampling(quickstart, sampling))
    assert sent == {
        "temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "max_tokens": 16,
        "min_tokens": 2, "vllm_xargs": {"a": 1},
    }  # fmt: skip


def test_token_numbers_of_a_bias_are_numbers(quickstart: Recipe) -> None:
    recipe = with_sampling(quickstart, {"temperature": 0.0, "logit_bias": {"70": -5.0, 71: 1}})
    assert sampling_params(recipe)["logit_bias"] == {70: -5.0, 71: 1}
