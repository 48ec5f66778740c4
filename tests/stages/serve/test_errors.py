"""An exception of the application becomes an answer of JSON, unless the answer has begun."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient

from stages.serve.guard.errors import Errors, refusal_of_validation, sentence


def status_of(error: Exception, request_id: str) -> int:
    return 400 if isinstance(error, ValueError) else 500


class WithId:
    """Gives each request an id, as Ray's layer around this one does."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope.setdefault("state", {})["request_id"] = "seven"
        await self._app(scope, receive, send)


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()

    @app.get("/good")
    async def good() -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            yield "one "
            yield "two"

        return StreamingResponse(parts())

    @app.get("/bad")
    async def bad() -> None:
        raise RuntimeError("no engine")

    @app.get("/mistaken")
    async def mistaken() -> None:
        error = ValueError("It is too long.\nAsk for less.")
        error.param = "prompt"  # type: ignore[attr-defined]
        raise error

    @app.get("/refused")
    async def refused() -> None:
        raise HTTPException(404, "no such model")

    @app.get("/broken")
    async def broken() -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            yield "one "
            raise RuntimeError("the engine died")

        return StreamingResponse(parts())

    app.add_middleware(Errors, status_of=status_of)
    app.add_middleware(WithId)
    return TestClient(app)


def test_an_answer_passes_as_it_is(client: TestClient) -> None:
    assert client.get("/good").text == "one two"


def test_an_exception_is_answered_with_its_status_and_the_request_s_id(client: TestClient) -> None:
    answer = client.get("/bad")
    assert answer.status_code == 500
    error = {"message": "The endpoint failed (request seven).", "type": "server_error", "param": None}
    assert answer.json() == {"error": {**error, "code": "internal_error"}}


def test_a_client_s_mistake_is_answered_with_its_sentence_and_its_parameter(client: TestClient) -> None:
    answer = client.get("/mistaken")
    assert answer.status_code == 400
    error = {"message": "It is too long. Ask for less.", "type": "invalid_request_error", "param": "prompt"}
    assert answer.json() == {"error": {**error, "code": None}}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("a mistake", "a mistake."),
        ("Value error, two\n lines", "two lines."),
        ("Failed: [08:43:09] /project/cpp/x.cc:83: parsing", "Failed: parsing."),
        ("why?", "why?"),
        ("It is too long. (parameter=input, value=[1,\n 2)])", "It is too long."),
        ("It takes long (parameter=messages)", "It takes long."),
        ("x" * 600, "x" * 500 + "..."),
    ],
)
def test_a_message_is_one_sentence_without_internals(given: str, shown: str) -> None:
    assert sentence(given) == shown


def test_the_parameter_is_the_place_in_the_body_without_names_of_types() -> None:
    errors = [
        {
            "loc": ("body", "messages", 0, "ChatCompletionUserMessageParam", "content", "str"),
            "msg": "Input should be x",
        },
        {"loc": ("body", "messages", 0, "Other"), "msg": "Input should be y"},
    ]
    refusal = refusal_of_validation(errors)
    assert (refusal.status, refusal.param) == (400, "messages.0.content")
    assert refusal.message == "messages.0.content: Input should be x."


def test_what_fastapi_itself_answers_stays(client: TestClient) -> None:
    assert (client.get("/refused").status_code, client.get("/none").status_code) == (404, 404)


def test_an_answer_that_has_begun_is_broken_off(client: TestClient) -> None:
    with pytest.raises(RuntimeError, match="the engine died"):
        client.get("/broken")
