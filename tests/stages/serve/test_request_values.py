"""Values of a request's parameters: of the kind that the parameter has, and such that the engine can compute with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.testclient import TestClient

from stages.engines.vllm.sampling.effect import Engine
from stages.engines.vllm.sampling.values import wrong_values
from stages.sections.serve import Limits
from stages.serve.guard.front import GuardedFront
from stages.serve.guard.kinds import Kind, kinds_of
from tests.e2e.request_values import VALUES


@dataclass
class Detection:
    min_count: int = 0
    max_pattern_size: int = 0


class Options(BaseModel):
    include_usage: bool | None = None


class Ask(BaseModel, extra="allow"):
    prompt: Any = None
    seed: int | None = None
    top_k: int | None = None
    temperature: float | None = None
    repetition_penalty: float | None = None
    stream: bool | None = None
    stream_options: Options | None = None
    allowed_token_ids: list[int] | None = None
    repetition_detection: Detection | None = None
    structured_outputs: dict[str, Any] | None = None
    logit_bias: dict[str, float] | None = None
    stop: str | list[str] | None = None
    max_completion_tokens: int | None = None
    thinking_token_budget: int | None = None
    length_penalty: float = 1.0
    use_beam_search: bool = False
    return_token_offsets: bool | None = False
    truncation_side: str | None = None
    stream_interval: int | None = None
    response_format: dict[str, Any] | None = None


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(app(Ask)) as made:
        yield made


def app(model: Any) -> FastAPI:
    """The guard before a route that reads the request model and answers with it."""
    inner = FastAPI()

    async def completions(body: Any) -> dict[str, Any]:
        return body.model_dump()  # type: ignore[no-any-return]

    completions.__annotations__["body"] = model
    inner.post("/v1/completions")(completions)

    async def usable(*_: Any) -> str:
        return ""

    front = GuardedFront()
    front.configure({"keys": None, "limits": Limits(max_tokens=None).model_dump()})
    return front.wrap(inner, lambda error, _: 500, usable, wrong_values)


def post(client: TestClient, text: str) -> Any:
    headers = {"Content-Type": "application/json"}
    return client.post("/v1/completions", content=f"{{{text}}}".encode(), headers=headers)


DIGITS = "9" * 400


@pytest.mark.parametrize(
    ("text", "param", "words"),
    [
        ('"temperature": true', "temperature", "is True, and must be a number"),
        ('"temperature": "0.5"', "temperature", "is '0.5', and must be a number"),
        ('"temperature": [0]', "temperature", "is a list, and must be a number"),
        ('"top_k": true', "top_k", "must be a whole number"),
        ('"top_k": 1.5', "top_k", "must be a whole number"),
        ('"seed": "7"', "seed", "must be a whole number"),
        ('"stream": 1', "stream", "must be true or false"),
        ('"stream": "true"', "stream", "must be true or false"),
        ('"stream_options": {"include_usage": 1}', "stream_options.include_usage", "must be true or false"),
        ('"repetition_detection": {"min_count": true}', "repetition_detection.min_count", "must be a whole number"),
        ('"repetition_penalty": 1e300', "repetition_penalty", "must be a number >= 1e-30 and <= 1e+30"),
        ('"repetition_penalty": 1e39', "repetition_penalty", "<= 1e+30"),
        ('"repetition_penalty": 5e-324', "repetition_penalty", ">= 1e-30"),
        ('"repetition_penalty": -0.0', "repetition_penalty", ">= 1e-30"),
        ('"temperature": 1e-5', "temperature", "0, or a number >= 0.01 and <= 2"),
        ('"temperature": 1e300', "temperature", "<= 2"),
        (f'"top_k": {DIGITS}', "top_k", "<= 2147483647"),
        (f'"top_k": -{DIGITS}', "top_k", ">= -1"),
        (f'"seed": {2**63}', "seed", "<= 9223372036854775807"),
        ('"max_completion_tokens": -1', "max_completion_tokens", ">= 1"),
        ('"max_completion_tokens": 0', "max_completion_tokens", ">= 1"),
        (f'"thinking_token_budget": {2**64}', "thinking_token_budget", "<= 2147483647"),
        ('"repetition_detection": {"max_pattern_size": -1}', "repetition_detection.max_pattern_size", ">= 0"),
        (f'"repetition_detection": {{"min_count": {2**64}}}', "repetition_detection.min_count", "<= 2147483647"),
        (f'"allowed_token_ids": [1, {DIGITS}]', "allowed_token_ids[1]", "must be a token id"),
        ('"allowed_token_ids": [true]', "allowed_token_ids[0]", "must be a token id"),
        ('"allowed_token_ids": []', "allowed_token_ids", "must have a token id"),
        (f'"prompt": [{2**31}]', "prompt[0]", "must be a token id"),
        ('"prompt": [[1, -1]]', "prompt[0]", "must be a token id"),
        ('"logit_bias": {"5": 101}', "logit_bias.5", "must be a number >= -100 and <= 100"),
        ('"logit_bias": {"5": 1e300}', "logit_bias.5", "<= 100"),
        ('"logit_bias": {"5": "1"}', "logit_bias.5", "must be a number"),
        ('"logit_bias": {"05": 1}', "logit_bias", "token ids as names"),
        ('"logit_bias": {" 5": 1}', "logit_bias", "token ids as names"),
        ('"logit_bias": {"1_0": 1}', "logit_bias", "token ids as names"),
        (f'"logit_bias": {{"{DIGITS}": 1}}', "logit_bias", "token ids as names"),
        ('"stop": [""]', "stop", "must have no empty text"),
        ('"stop": ""', "stop", "must have no empty text"),
        ('"structured_outputs": {"regex": ""}', "structured_outputs.regex", "must not be empty"),
        ('"structured_outputs": {"grammar": " "}', "structured_outputs.grammar", "must not be empty"),
        ('"structured_outputs": {"json": ""}', "structured_outputs.json", "must not be empty"),
        ('"structured_outputs": {"structural_tag": ""}', "structured_outputs.structural_tag", "must not be empty"),
        ('"structured_outputs": {"choice": []}', "structured_outputs.choice", "texts that are not all empty"),
        ('"structured_outputs": {"choice": [""]}', "structured_outputs.choice", "texts that are not all empty"),
        ('"structured_outputs": {"disable_any_whitespace": 1}', "structured_outputs.disable_any_whitespace", "ignored"),
        ('"length_penalty": 2', "length_penalty", "with use_beam_search alone"),
        ('"length_penalty": 1e300, "use_beam_search": true', "length_penalty", "must be a number >= -50 and <= 50"),
        ('"truncation_side": "left"', "truncation_side", "with truncate_prompt_tokens alone"),
        ('"stream_interval": 4', "stream_interval", "with stream alone"),
        ('"response_format": {"type": "text", "json_schema": {}}', "response_format.json_schema", "json_schema alone"),
        ('"return_token_offsets": true', "return_token_offsets", "is not used by this endpoint"),
        ('"structured_outputs": {"json_object": false}', "structured_outputs.json_object", "must be true"),
    ],
)  # fmt: skip
def test_a_value_that_the_engine_cannot_use_is_a_400_that_names_it(
    text: str, param: str, words: str, client: TestClient
) -> None:
    answer = post(client, text)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == (param, "invalid_value")
    assert words in error["message"]
    assert len(error["message"]) < 200


@pytest.mark.parametrize(
    "text",
    [
        '"temperature": 0', '"temperature": -0.0', '"temperature": 0.01', '"temperature": 2', '"temperature": null',
        '"top_k": 5.0', '"top_k": -1', '"repetition_penalty": 1', '"repetition_penalty": 1e-30', f'"seed": {-(2**63)}',
        '"stream": false', '"prompt": ["a", "b"]', '"prompt": [1, 2.0]', '"prompt": [[1], [2, 3]]', '"prompt": ""',
        '"logit_bias": {"5": -100, "0": 100.0}', '"stop": ["a"]', '"structured_outputs": {"regex": " "}',
        '"length_penalty": 1.0', '"length_penalty": 2.0, "use_beam_search": true',
        '"structured_outputs": {"choice": ["", "a"]}', '"structured_outputs": {"json": {}}',
    ],
)  # fmt: skip
def test_a_value_that_the_engine_can_use_passes(text: str, client: TestClient) -> None:
    answer = post(client, text)
    assert answer.status_code == 200, answer.text
    assert json.loads(f"{{{text}}}").items() <= answer.json().items()


def test_a_parameter_that_takes_other_values_besides_is_left_to_the_application() -> None:
    assert kinds_of(int | str).single is None
    assert kinds_of(int | float | None) == Kind(float)
    assert kinds_of(list[int]).single is None


@pytest.mark.environment("engine")
def test_the_values_of_the_live_test_are_refused_before_the_installed_vllm_s_own_models_read_them() -> None:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    wrong = {}
    with TestClient(app(ChatCompletionRequest)) as client:
        for text, param in VALUES:
            answer = post(client, f'"messages": [{{"role": "user", "content": "Hello"}}], {text}')
            found = answer.json().get("error", {}).get("param", "")
            if (answer.status_code, found) != (400 if param else 200, param):
                wrong[text[:80]] = (answer.status_code, found)
    assert wrong == {}


@pytest.mark.environment("engine")
def test_every_number_of_the_installed_vllm_s_requests_is_known_as_one_and_bounded() -> None:
    """What no table bounds is listed here, with why."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest

    bounded_by_the_model = {"truncate_prompt_tokens", "priority"}
    for model in (ChatCompletionRequest, CompletionRequest):
        kinds = kinds_of(model).inner
        numbers = {name for name, kind in kinds.items() if kind.single in (int, float)}
        assert {"temperature", "top_p", "n", "max_tokens", "seed", "repetition_penalty"} <= numbers
        engine = Engine({"scheduling_policy": "priority"})
        bounded = {name for name in numbers if list(wrong_values({name: 10**400}, engine))}
        assert numbers - bounded == bounded_by_the_model & numbers
        assert {"min_count", "max_pattern_size"} <= set(kinds["repetition_detection"].inner)
