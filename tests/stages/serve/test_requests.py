"""A request to the endpoint is JSON of known parameters, within what it may cost. All else is a 400 or 415."""

from __future__ import annotations

import difflib
import gzip
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, Request
from pydantic import BaseModel, Field, field_validator
from starlette.testclient import TestClient

from stages.sections.serve import Limits
from stages.serve.guard.front import GuardedFront
from stages.serve.guard.names import names_of


class Sub(BaseModel, extra="allow"):
    name: str
    inner: dict[str, Any] | None = Field(default=None, alias="schema")


class Form(BaseModel, extra="allow"):
    type: str
    json_schema: Sub | None = None


class Shaped(BaseModel, extra="allow"):
    json_: Any = Field(default=None, alias="json")
    regex: str | None = None
    grammar: str | None = None
    choice: list[str] | None = None


class Ask(BaseModel, extra="allow"):
    model: str | None = None
    prompt: Any = None
    messages: list[dict[str, Any]] | None = None
    max_tokens: int | None = 16
    max_completion_tokens: int | None = None
    n: int = 1
    temperature: float = 1.0
    stop: str | list[str] | None = None
    bad_words: list[str] | None = None
    logit_bias: dict[str, float] | None = None
    response_format: Form | None = None
    structured_outputs: Shaped | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    stop_token_ids: list[int] | None = None
    allowed_token_ids: list[int] | None = None
    request_id: str = ""

    @field_validator("model", mode="before")
    @classmethod
    def stumbles(cls, value: Any) -> Any:
        return value.strip()  # fails at a number, as vLLM's own do at what they do not expect

    @field_validator("temperature")
    @classmethod
    def bounded(cls, value: float) -> float:
        if value > 2:
            raise ValueError("temperature must be in [0, 2]")
        return value


TRIED: list[tuple[str, Any]] = []


async def try_grammar(kind: str, value: Any, text: str, timeout_s: float) -> str:
    """A fake of the engine's, which knows one bad schema."""
    TRIED.append((kind, value))
    return "it allows no text" if "bad" in text else ""


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(app(), raise_server_exceptions=False) as made:
        yield made


def app(**limits: Any) -> FastAPI:
    """A front before routes like vLLM's."""
    TRIED.clear()
    inner = FastAPI()

    @inner.post("/v1/completions")
    async def completions(body: Ask, request: Request) -> dict[str, Any]:
        if body.model == "broken":
            raise RuntimeError("secret internals")
        if body.model == "refused":
            raise ValueError("no such thing\n at /a/place.py:12")
        front.complete(body)
        return body.model_dump()

    @inner.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"data": []}

    front = GuardedFront()
    front.configure({"keys": None, "limits": Limits(**limits).model_dump()})
    return front.wrap(inner, lambda error, _: 400 if isinstance(error, ValueError) else 500, try_grammar)


def error_of(answer: Any, status: int = 400) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert "\n" not in error["message"]
    assert error["message"].endswith((".", "?"))
    return error


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "", "json"])
def test_a_body_that_is_not_called_json_is_a_415(kind: str | None, client: TestClient) -> None:
    headers = {"Content-Type": kind} if kind is not None else {}
    answer = client.post("/v1/completions", content=b'{"prompt": "hi"}', headers=headers)
    assert "Content-Type: application/json" in error_of(answer, 415)["message"]


@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"]
)
def test_json_by_any_of_its_names_is_read(kind: str, client: TestClient) -> None:
    answer = client.post("/v1/completions", content=b'{"prompt": "hi"}', headers={"Content-Type": kind})
    assert answer.status_code == 200, answer.text


def post(client: TestClient, body: Any, raw: bool = False) -> Any:
    content = body if raw else json.dumps(body).encode()
    return client.post("/v1/completions", content=content, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("encoding", ["gzip", "deflate, gzip", "br"])
def test_a_packed_body_is_a_415(encoding: str, client: TestClient) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    answer = client.post("/v1/completions", content=gzip.compress(b'{"prompt": "a"}'), headers=headers)
    assert "Content-Encoding" in error_of(answer, 415)["message"]
    headers["Content-Encoding"] = "identity"
    assert client.post("/v1/completions", content=b'{"prompt": "a"}', headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[]", "is a list"),
        (b'"hi"', "is a string"),
        (b"null", "is null"),
        (b"3", "is a single value"),
        (b"", "not valid JSON"),
        (b"{", "not valid JSON: .* at line 1, column 2"),
        (b'{"temperature": NaN}', "NaN is not a JSON number"),
        (b'{"temperature": 1e999}', "the number 1e999, which is too large"),
        (b'{"max_tokens": 1, "max_tokens": 3}', "'max_tokens' twice"),
        (b'{"messages": [{"role": "user", "role": "system"}]}', "'role' twice"),
        (b'{"temperature": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"prompt": "\xff"}', "not UTF-8"),
        (b'{"prompt": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"n": ' + b"9" * 5000 + b"}", "number that is too long"),
    ],
)
def test_a_body_that_is_not_a_json_object_is_a_400(body: bytes, words: str, client: TestClient) -> None:
    assert re.search(words, error_of(post(client, body, raw=True))["message"])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": "\ud83d x"}, "prompt"),
        ({"messages": [{"role": "user", "content": [{"text": "\udc00"}]}]}, "messages"),
        ({"prompt": "a", "logit_bias": {"\ud800": 1}}, "logit_bias"),
    ],
)
def test_half_of_a_surrogate_pair_is_a_400(body: Any, param: str, client: TestClient) -> None:
    error = error_of(post(client, body))
    if param != "logit_bias":
        assert (error["param"], error["code"]) == (param, "invalid_unicode")


def test_a_whole_pair_is_a_character(client: TestClient) -> None:
    assert post(client, b'{"prompt": "\\ud83d\\ude00"}', raw=True).json()["prompt"] == "\U0001f600"


FORM = "response_format.json_schema"
MISSPELLED = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "shema": {}}}}


@pytest.mark.parametrize(
    ("body", "param", "instead"),
    [
        ({"guided_choice": ["yes"]}, "guided_choice", "structured_outputs.choice"),
        ({"guided_json": {}}, "guided_json", "structured_outputs.json"),
        ({"guided_regex": "a"}, "guided_regex", "structured_outputs.regex"),
        ({"guided_grammar": "a"}, "guided_grammar", "structured_outputs.grammar"),
        ({"max_new_tokens": 3}, "max_new_tokens", "max_tokens"),
        ({"best_of": 3}, "best_of", "n"),
        ({"temprature": 0}, "temprature", "temperature"),
        (MISSPELLED, f"{FORM}.shema", f"{FORM}.schema"),
        ({"structured_outputs": {"jsn": {}}}, "structured_outputs.jsn", "structured_outputs.json"),
        ({"anything": 1}, "anything", None),
    ],
)  # fmt: skip
def test_a_parameter_that_there_is_not_is_refused_with_its_present_name(
    body: Any, param: str, instead: str | None, client: TestClient
) -> None:
    error = error_of(post(client, {"prompt": "hi", **body}))
    assert (error["param"], error["code"]) == (param, "unknown_parameter")
    assert repr(param) in error["message"]
    assert ("Use" in error["message"]) == (instead is not None)
    if instead:
        assert error["message"].endswith(f" Use {instead}.")


@pytest.mark.parametrize(
    ("body", "limits", "param"),
    [
        ({"max_tokens": 101}, {"max_tokens": 100}, "max_tokens"),
        ({"max_completion_tokens": 10**12}, {"max_tokens": 100}, "max_completion_tokens"),
        ({"n": 17}, {}, "n"),
        ({"prompt": ["a"] * 1000, "max_tokens": 64}, {"max_tokens": 64}, "prompt"),
        ({"prompt": ["a"] * 65, "n": 2}, {}, "prompt"),
        ({"prompt": [[1, 2]] * 129}, {}, "prompt"),
        ({"n": 5}, {"max_answers": 4}, "n"),
        ({"n": 17.0}, {}, "n"),
        ({"max_tokens": 1e3}, {"max_tokens": 100}, "max_tokens"),
        ({"max_completion_tokens": 101.0}, {"max_tokens": 100}, "max_completion_tokens"),
        ({"prompt": ["a"] * 65, "n": 2.0}, {}, "prompt"),
        ({"stop": ["a"] * 65}, {}, "stop"),
        ({"bad_words": ["a"] * 257}, {}, "bad_words"),
        ({"logit_bias": {str(token): 1 for token in range(1025)}}, {}, "logit_bias"),
    ],
)
def test_what_costs_more_than_a_limit_is_refused(body: Any, limits: Any, param: str) -> None:
    with TestClient(app(**limits)) as client:
        error = error_of(post(client, body))
    assert (error["param"], error["code"]) == (param, "limit_exceeded")
    assert "at most" in error["message"]


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": ["a"] * 128},
        {"prompt": list(range(5000))},
        {"prompt": ["a"] * 8, "n": 16},
        {"prompt": []},
        {"n": 16.0},
        {"stop": ["a"] * 64},
        {"stop": "a" * 100},
    ],
)
def test_what_is_within_the_limits_passes(body: Any, client: TestClient) -> None:
    assert post(client, body).status_code == 200


def test_each_prompt_and_answer_counts_as_a_request() -> None:
    with TestClient(app(requests_per_minute=10)) as client:
        assert post(client, {"prompt": ["a"] * 3, "n": 2}).status_code == 200
        refused = post(client, {"prompt": ["a"] * 5})
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert 0 < int(refused.headers["retry-after"]) <= 60
        assert post(client, {"prompt": ["a"] * 4}).status_code == 200  # what was refused has not counted
        assert post(client, {"prompt": "a"}).status_code == 429


def test_more_answers_than_there_are_in_a_minute_are_never_possible() -> None:
    with TestClient(app(requests_per_minute=1)) as client:
        assert "gives 1 a minute" in error_of(post(client, {"prompt": "a", "n": 2}))["message"]
        assert post(client, {"prompt": "a"}).status_code == 200


def nested(levels: int) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        made = {"type": "object", "properties": {"p": made}}
    return made


def by_format(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


def tools(*functions: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": f"f{at}", **each}} for at, each in enumerate(functions)]


DEEP = tools({"parameters": nested(40)})
STRICT = {"tools": [*DEEP, *tools({"strict": True})]}
MANY = {"tools": tools(*[{"name": f"{at:0>400}"} for at in range(100)]), "tool_choice": "required"}


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (by_format(nested(40)), "response_format.json_schema.schema", "grammar_too_deep"),
        (by_format({"enum": ["x" * 40_000]}), "response_format.json_schema.schema", "grammar_too_large"),
        ({"structured_outputs": {"json": nested(40)}}, "structured_outputs.json", "grammar_too_deep"),
        ({"structured_outputs": {"json": json.dumps(nested(40))}}, "structured_outputs.json", "grammar_too_deep"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json", "invalid_grammar"),
        ({"structured_outputs": {"regex": "(" * 100 + ")" * 100}}, "structured_outputs.regex", "grammar_too_deep"),
        ({"structured_outputs": {"grammar": "x" * 40_000}}, "structured_outputs.grammar", "grammar_too_large"),
        ({"structured_outputs": {"choice": ["x" * 400] * 100}}, "structured_outputs.choice", "grammar_too_large"),
        ({"tools": DEEP, "tool_choice": "required"}, "tools.0.function.parameters", "grammar_too_deep"),
        (STRICT, "tools.0.function.parameters", "grammar_too_deep"),
        ({**STRICT, "tool_choice": "auto"}, "tools.0.function.parameters", "grammar_too_deep"),
        (MANY, "tools", "grammar_too_large"),
        (by_format({"const": "bad"}), "response_format.json_schema.schema", "invalid_grammar"),
        ({"structured_outputs": {"regex": "bad"}}, "structured_outputs.regex", "invalid_grammar"),
        (by_format({"items": [{"$ref": "http://x/y"}]}), "response_format.json_schema.schema", "invalid_grammar"),
        ({"tools": tools({"strict": True, "parameters": {"$ref": "file:///x"}})},
         "tools.0.function.parameters", "invalid_grammar"),
    ],
)  # fmt: skip
def test_schemas_and_grammars_that_are_large_deep_or_unusable_are_refused(
    body: Any, param: str, code: str, client: TestClient
) -> None:
    error = error_of(post(client, {"prompt": "hi", **body}))
    assert (error["param"], error["code"]) == (param, code)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [{"role": "user", "content": "a"}] * 10_001}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 10_000}]}, "messages"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}] * 10_000}]}, "messages"),
        ({"messages": [{"role": "user", "content": "a"}], "tools": tools({}) * 10_000}, "tools"),
        ({"stop_token_ids": [1] * 1025}, "stop_token_ids"),
        ({"allowed_token_ids": [1] * 262_145}, "allowed_token_ids"),
    ],
)
def test_more_things_than_the_endpoint_looks_at_are_refused_at_once(body: Any, param: str, client: TestClient) -> None:
    error = error_of(post(client, body))
    assert (error["param"], error["code"]) == (param, "limit_exceeded")


def test_a_name_without_end_is_compared_with_none(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(difflib, "get_close_matches", None)  # it would fail if it were asked
    assert "Use" not in error_of(post(client, {"k" * 5_000_000: 1}))["message"]


def test_every_constraint_is_tried_and_only_those(client: TestClient) -> None:
    plain, strict, loose = {"parameters": {"const": 1}}, {"strict": True}, {"strict": False, "parameters": {"const": 3}}
    assert post(client, {"prompt": "hi", "tools": tools(plain, loose), "tool_choice": "auto"}).status_code == 200
    assert post(client, {"prompt": "hi", "tools": tools(plain, strict), "tool_choice": "none"}).status_code == 200
    assert TRIED == []
    named = {"type": "function", "function": {"name": "f0"}}
    body = {"prompt": "hi", "tools": tools(plain), "tool_choice": named, **by_format({"const": 2})}
    assert post(client, {**body, "structured_outputs": {"choice": ["a"]}}).status_code == 200
    assert TRIED == [("choice", ["a"]), ("json", {"const": 2}), ("json", {"const": 1}), ("choice", ["f0"])]
    TRIED.clear()
    assert post(client, {"prompt": "hi", "tools": tools(plain, loose, strict)}).status_code == 200
    assert TRIED == [("json", {"const": 1}), ("choice", ["f0", "f2"])]


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"n": "many"}, "n", "must be a whole number"),
        ({"temperature": 3}, "temperature", "must be in"),
        ({"response_format": {}}, "response_format.type", "Field required"),
        ({"messages": [3]}, "messages.0", "valid dictionary"),
    ],
)
def test_a_value_of_the_wrong_type_is_a_400_that_names_the_parameter(
    body: Any, param: str, words: str, client: TestClient
) -> None:
    error = error_of(post(client, body))
    assert error["param"] == param
    assert words in error["message"]


def test_a_value_that_a_validator_did_not_expect_is_the_client_s_mistake(client: TestClient) -> None:
    assert error_of(post(client, {"model": ["x"]}))["message"] == "A value in the request's body has a wrong type."


def test_no_route_and_no_method_have_the_same_shape(client: TestClient) -> None:
    assert error_of(client.get("/v1/nothing"), 404)["code"] == "not_found"
    assert error_of(client.get("/v1/completions"), 405)["code"] == "method_not_allowed"


def test_an_exception_tells_nothing_of_the_inside(client: TestClient) -> None:
    answer = post(client, {"model": "broken"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    assert "secret" not in answer.text
    assert error_of(post(client, {"model": "refused"}))["message"].startswith("no such thing")


def test_a_failure_of_the_guard_itself_tells_nothing_either(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.serve.guard.gate.read_object", lambda kind, body: {}["secret"])
    answer = post(client, {"prompt": "hi"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    assert "secret" not in answer.text


@pytest.mark.environment("engine")
def test_the_parameters_are_those_of_the_installed_vllm() -> None:
    """Ray's routes over vLLM's models: what clients send today is there, what vLLM has dropped is not."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest

    chat, completion = names_of(ChatCompletionRequest), names_of(CompletionRequest)
    assert chat
    assert completion
    assert {"messages", "max_tokens", "max_completion_tokens", "tools", "response_format", "user"} <= set(chat)
    assert {"prompt", "max_tokens", "n", "suffix", "logprobs"} <= set(completion)
    assert not {"guided_json", "guided_choice", "best_of", "max_new_tokens"} & {*chat, *completion}
    shaped, form = chat["structured_outputs"], chat["response_format"]
    assert shaped
    assert form
    assert form["json_schema"]
    assert {"json", "regex", "choice", "grammar"} <= set(shaped)
    assert not [name for name in shaped if name.startswith("_")]
    assert "schema" in form["json_schema"]
    assert chat["messages"] is None  # what a message may have depends on its role and the chat template


def test_a_union_with_a_type_of_any_names_is_not_checked() -> None:
    assert names_of(Sub | None) == {"name": None, "schema": None}
    assert names_of(list[Sub | Form]) == {"name": None, "schema": None, "type": None, "json_schema": names_of(Sub)}
    for annotation in (Sub | dict[str, Any], list[dict[str, Any] | Sub], Any, str | None, dict[str, Sub]):
        assert names_of(annotation) is None


@pytest.mark.parametrize(
    ("message", "param", "hint"),
    [
        ({"role": "user", "content": "a", "weight": 1}, "messages[0].weight", "It uses: role, content, name."),
        (
            {"role": "assistant", "content": "a", "reasoning_content": "b"},
            "messages[0].reasoning_content",
            "Use reasoning.",
        ),
        ({"role": "user", "content": "a", "tool_calls": [{"id": "1"}]}, "messages[0].tool_calls", "It uses:"),
        (
            {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]},
            "messages[0].content[0].cache_control",
            "It uses: type, text.",
        ),
        ({"role": "user", "content": "a", "name": {"first": "Ann"}}, "messages[0].name", "a text"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://elsewhere.org/a.png"}}]},
            "messages[0].content[0].image_url.url",
            "a data URI",
        ),
        (
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,", "detail": "low"}}],
            },
            "messages[0].content[0].image_url.detail",
            "It uses: url.",
        ),
    ],
)
def test_what_the_endpoint_would_not_use_of_a_message_is_refused(
    client: TestClient, message: dict[str, Any], param: str, hint: str
) -> None:
    error = client.post("/v1/completions", json={"model": "base", "messages": [message]}).json()["error"]
    assert error["param"] == param
    assert error["message"].startswith(f"{param} is not used by this endpoint.")
    assert hint in error["message"]


def called(function: Any) -> dict[str, Any]:
    calls = [{"id": "c", "type": "function", "function": function}]
    return {"messages": [{"role": "assistant", "content": None, "tool_calls": calls}]}


def content(value: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": value}]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (content({"text": "a"}), "messages[0].content"),
        (content(5), "messages[0].content"),
        (content(True), "messages[0].content"),
        (content([{"type": "text"}]), "messages[0].content[0].text"),
        (content([{"type": "text", "text": 5}]), "messages[0].content[0].text"),
        (content([{"type": "text", "text": "a"}, {"type": "text", "text": None}]), "messages[0].content[1].text"),
        ({"messages": [{"role": "assistant", "tool_calls": "x"}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}]}]}, "messages[0].tool_calls[0].function"),
        (called({"arguments": "{}"}), "messages[0].tool_calls[0].function"),
        (called({"name": "f", "arguments": "not JSON"}), "messages[0].tool_calls[0].function.arguments"),
        (called({"name": "f", "arguments": "[1]"}), "messages[0].tool_calls[0].function.arguments"),
        (called({"name": "f", "arguments": {"a": 1}}), "messages[0].tool_calls[0].function.arguments"),
        (called({"name": "f"}), "messages[0].tool_calls[0].function.arguments"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
        ),
        ({"request_id": "a\nb"}, "request_id"),
        ({"request_id": "../x"}, "request_id"),
    ],
)
def test_a_value_that_vllm_would_fail_at_or_pass_over_is_a_400_that_names_it(
    body: Any, param: str, client: TestClient
) -> None:
    error = error_of(post(client, body))
    assert error["param"] == param
    assert error["message"].startswith(f"{param} must be ")


@pytest.mark.parametrize(
    "body",
    [
        content([{"type": "text", "text": ""}, "a"]),
        called({"name": "f", "arguments": ""}),
        called({"name": "f", "arguments": ' {"a": [1]} '}),
        {"messages": [{"role": "assistant", "content": "a", "tool_calls": None}]},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}},
        {"request_id": "3f2a-9_b.c:1"},
    ],
)
def test_values_of_the_shape_that_vllm_reads_pass(body: Any, client: TestClient) -> None:
    assert post(client, body).status_code == 200


def test_an_answer_may_be_sent_back_with_all_of_its_fields(client: TestClient) -> None:
    answer = {"role": "assistant", "content": "a", "refusal": None, "annotations": [], "audio": None, "reasoning": "b"}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [answer, {**answer, "tool_calls": [call]}, {"role": "tool", "content": "2", "tool_call_id": "c"}]
    assert client.post("/v1/completions", json={"model": "base", "messages": messages}).status_code == 200
