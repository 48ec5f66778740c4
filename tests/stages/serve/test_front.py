"""What stands before the endpoint's API: the guard outermost, no documentation pages, no open CORS."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.middleware.cors import CORSMiddleware

from stages.serve.guard.front import GuardedFront
from stages.serve.guard.keys import digest

KEY = "k" * 20
LIMITS = {"max_body_bytes": 100, "max_tokens": 8, "max_n": 1, "requests_per_minute": None}


async def usable(kind: str, value: Any, text: str, timeout_s: float) -> str:
    return ""


@pytest.fixture
def front() -> GuardedFront:
    front = GuardedFront()
    front.configure({"keys": {"digests": [digest(KEY)], "file": None}, "limits": LIMITS})
    return front


@pytest.fixture
def client(front: GuardedFront) -> TestClient:
    app = FastAPI()
    app.add_middleware(CORSMiddleware, allow_origins=["*"])

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"data": []}

    return TestClient(front.wrap(app, lambda error, request_id: 500, usable))


def test_a_request_without_a_key_is_refused_and_one_with_it_is_answered(client: TestClient) -> None:
    assert client.get("/v1/models").status_code == 401
    assert client.get("/v1/models", headers={"Authorization": f"Bearer {KEY}"}).json() == {"data": []}


def test_pages_of_documentation_and_headers_for_other_web_pages_are_gone(client: TestClient) -> None:
    key = {"Authorization": f"Bearer {KEY}"}
    assert [client.get(page, headers=key).status_code for page in ("/docs", "/redoc", "/openapi.json")] == [404] * 3
    answer = client.get("/v1/models", headers={**key, "Origin": "https://elsewhere.example"})
    assert "access-control-allow-origin" not in answer.headers
