"""An exception of the application becomes an answer of JSON, unless the answer has begun."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient

from stages.serve.errors import Errors


def body_of(error: Exception, request_id: str) -> Any:
    body = {"error": {"message": f"{error} (Request ID: {request_id})", "code": 418}}
    return SimpleNamespace(model_dump=lambda: body, error=SimpleNamespace(code=418))


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

    @app.get("/refused")
    async def refused() -> None:
        raise HTTPException(404, "no such model")

    @app.get("/torn")
    async def torn() -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            yield "one "
            raise RuntimeError("the engine died")

        return StreamingResponse(parts())

    app.add_middleware(Errors, body_of=body_of)
    app.add_middleware(WithId)
    return TestClient(app)


def test_an_answer_passes_as_it_is(client: TestClient) -> None:
    assert client.get("/good").text == "one two"


def test_an_exception_is_answered_with_its_status_and_the_request_s_id(client: TestClient) -> None:
    answer = client.get("/bad")
    assert answer.status_code == 418
    assert answer.json() == {"error": {"message": "no engine (Request ID: seven)", "code": 418}}


def test_what_fastapi_itself_answers_stays(client: TestClient) -> None:
    assert (client.get("/refused").status_code, client.get("/none").status_code) == (404, 404)


def test_an_answer_that_has_begun_is_broken_off(client: TestClient) -> None:
    with pytest.raises(RuntimeError, match="the engine died"):
        client.get("/torn")
