"""What the guard lets through to the endpoint, what it answers itself, and that answers stream through it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel
from starlette.testclient import TestClient

from stages.sections.serve import Limits
from stages.serve.guard.costs import set_max_tokens
from stages.serve.guard.gate import Gate, Guard, route_of
from stages.serve.guard.keys import digest

KEY, OTHER = "a-good-key-0123456789", "another-key-0123456789"
PATHS = ("/v1/models", "/v1/chat/completions", "/metrics", "/docs", "/openapi.json", "/", "/health/", "/health/../x")
GOOD = {"Authorization": f"Bearer {KEY}"}


class Echo:
    """An application that tells what reached it."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.num_asked = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.num_asked += 1
        self.headers = scope["headers"]
        self.body, more = b"", True
        while more:
            message = await receive()
            self.body, more = self.body + message["body"], message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": b'{"data": [], "object": "list"}'})


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def gate(clock: Clock | None = None, keys: Mapping[str, Any] | None = None, **limits: int) -> Gate:
    made = Gate(logging.getLogger("guard"), clock or Clock())
    made.configure({"keys": keys, "limits": Limits(**limits).model_dump()})
    return made


def with_keys(*keys: str) -> dict[str, Any]:
    return {"file": None, "digests": [digest(key) for key in keys]}


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def guarded(echo: Echo) -> TestClient:
    return client_of(echo, gate(keys=with_keys(KEY, OTHER)))


def client_of(echo: Echo, made: Gate) -> TestClient:
    return TestClient(Guard(echo, made))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": KEY},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY} {KEY}"},
        {"Authorization": f"Bearer {digest(KEY)}"},
        {"api-key": KEY},
        {"Authorization": b"Bearer \xff\xfe"},
    ],
)
def test_nobody_gets_through_without_a_good_key(
    header: Any, guarded: TestClient, echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    asked = [(method, path) for method in ("GET", "POST", "OPTIONS", "BREW") for path in PATHS]
    for method, path in asked:
        answer = guarded.request(method, path, headers=header)
        assert answer.status_code == 401
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, "invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert echo.num_asked == 0
    assert KEY not in caplog.text


def test_a_web_page_of_another_site_is_told_nothing(guarded: TestClient) -> None:
    origin = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    for answer in (guarded.options("/v1/models", headers=origin), guarded.get("/health", headers=origin)):
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("header", [GOOD, {"Authorization": f"bearer   {OTHER}"}, {"authorization": f"BEARER {KEY} "}])
def test_a_good_key_gets_through_and_stays_behind(header: dict[str, str], guarded: TestClient, echo: Echo) -> None:
    answer = guarded.post("/v1/x", headers={**header, "x-mine": "1"}, content=b"body")
    assert (answer.status_code, echo.body) == (200, b"body")
    names = dict(echo.headers)
    assert b"authorization" not in names
    assert names[b"x-mine"] == b"1"


def test_health_is_open_to_all(guarded: TestClient, echo: Echo) -> None:
    assert guarded.get("/health").json() == {"status": "ok"}
    assert guarded.head("/health").status_code == 200
    assert guarded.post("/health").status_code == 401
    assert echo.num_asked == 0


@pytest.mark.parametrize(
    ("path", "root", "route"),
    [
        ("/health", "", "/health"),
        ("/app/health", "/app", "/health"),
        ("/app/health", "/app/", "/health"),
        ("/apple/health", "/app", "/apple/health"),
        ("/health", "/app", "/health"),
    ],
)
def test_the_route_is_below_the_prefix(path: str, root: str, route: str) -> None:
    assert route_of({"path": path, "root_path": root}) == route


def test_without_keys_nobody_is_asked_for_one(echo: Echo) -> None:
    assert client_of(echo, gate()).get("/v1/models").status_code == 200


def test_before_it_is_configured_the_gate_is_closed(echo: Echo) -> None:
    answer = client_of(echo, Gate(logging.getLogger("guard"))).get("/v1/models", headers=GOOD)
    assert (answer.status_code, echo.num_asked) == (503, 0)


def test_a_file_of_keys_is_rotated_without_a_restart(echo: Echo, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(KEY)
    client = client_of(echo, gate(keys={"file": str(file), "digests": []}))
    assert client.get("/v1/models", headers=GOOD).status_code == 200
    file.write_text(OTHER)
    assert client.get("/v1/models", headers=GOOD).status_code == 401
    assert client.get("/v1/models", headers={"Authorization": f"Bearer {OTHER}"}).status_code == 200
    file.write_text("")
    assert client.get("/v1/models", headers={"Authorization": f"Bearer {OTHER}"}).status_code == 401


def test_the_gate_takes_other_settings_while_it_stands(echo: Echo) -> None:
    made = gate(keys=with_keys(KEY))
    client = client_of(echo, made)
    assert client.get("/v1/models", headers=GOOD).status_code == 200
    made.configure({"keys": with_keys(OTHER), "limits": Limits(max_body_bytes=1).model_dump()})
    assert client.get("/v1/models", headers=GOOD).status_code == 401
    answer = client.post("/v1/x", headers={"Authorization": f"Bearer {OTHER}"}, content=b"ab")
    assert answer.status_code == 413


def openai_client(app: Any, key: str) -> openai.AsyncOpenAI:
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app=app))
    return openai.AsyncOpenAI(base_url="http://endpoint/v1", api_key=key, max_retries=0, http_client=http)


@pytest.mark.parametrize(
    ("key", "limits", "expected"),
    [
        ("wrong-key-0123456789", {}, openai.AuthenticationError),
        (KEY, {"requests_per_minute": 1}, openai.RateLimitError),
    ],
)
def test_the_openai_client_knows_the_errors(key: str, limits: dict[str, int], expected: Any, echo: Echo) -> None:
    async def ask() -> None:
        app = Guard(echo, gate(keys=with_keys(KEY), **limits))
        async with openai_client(app, KEY) as good, openai_client(app, key) as other:
            assert (await good.models.list()).data == []
            with pytest.raises(expected) as error:
                await other.models.list()
            assert error.value.body["code"] in ("invalid_api_key", "rate_limit_exceeded")
            assert key not in str(error.value)

    asyncio.run(ask())


@pytest.mark.parametrize("size", [0, 99, 100])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_within_the_limit_arrives_whole(size: int, chunked: bool, echo: Echo) -> None:
    sent = bytes(range(size))
    content: Any = (sent[index : index + 7] for index in range(0, size, 7)) if chunked else sent
    answer = client_of(echo, gate(max_body_bytes=100)).post("/v1/x", content=content)
    assert (answer.status_code, echo.body) == (200, sent)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_the_limit_is_refused(chunked: bool, echo: Echo) -> None:
    content: Any = (b"x" * 51 for _ in range(2)) if chunked else b"x" * 101
    answer = client_of(echo, gate(max_body_bytes=100)).post("/v1/x", content=content)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"
    assert echo.num_asked == 0


def run(app: Any, messages: list[dict[str, Any]], headers: list[tuple[bytes, bytes]]) -> tuple[list[Any], int]:
    """What the application sends, and how many messages it took."""
    sent: list[Any] = []
    taken = 0

    async def receive() -> dict[str, Any]:
        nonlocal taken
        taken += 1
        return messages[taken - 1]

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/x", "root_path": "", "headers": headers}
    asyncio.run(app(scope, receive, send))
    return sent, taken


def test_an_endless_body_is_dropped_and_not_read_to_its_end(echo: Echo) -> None:
    piece = {"type": "http.request", "body": b"x" * 40, "more_body": True}
    sent, taken = run(Guard(echo, gate(max_body_bytes=100)), [piece] * 1000, [])
    assert (sent[0]["status"], taken) == (413, 11)
    sent, taken = run(Guard(echo, gate(max_body_bytes=100)), [piece] * 1000, [(b"content-length", b"401")])
    assert (sent[0]["status"], taken) == (413, 0)


def test_a_stranger_s_body_is_not_read(echo: Echo) -> None:
    sent, taken = run(Guard(echo, gate(keys=with_keys(KEY))), [], [])
    assert (sent[0]["status"], taken) == (401, 0)


def test_a_client_that_leaves_during_its_body_is_not_forwarded(echo: Echo) -> None:
    sent, _ = run(Guard(echo, gate()), [{"type": "http.disconnect"}], [])
    assert (sent[0]["status"], echo.num_asked) == (400, 0)


def test_an_answer_streams_through_and_the_application_learns_that_the_client_left() -> None:
    seen: list[Any] = []

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"one", b"two"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
            seen.append(len(sent))  # each part is forwarded before the next is made
        seen.append((await receive())["type"])

    sent: list[Any] = []
    messages = [{"type": "http.request", "body": b""}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/x",
        "headers": [(b"authorization", GOOD["Authorization"].encode())],
    }
    asyncio.run(Guard(stream, gate(keys=with_keys(KEY)))(scope, receive, send))
    assert seen == [2, 3, "http.disconnect"]
    assert [message.get("body") for message in sent] == [None, b"one", b"two"]


def test_a_websocket_is_closed() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Guard(Echo(), gate())({"type": "websocket", "path": "/v1/x"}, send, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_each_key_has_its_own_requests_a_minute(echo: Echo) -> None:
    clock = Clock()
    client = client_of(echo, gate(clock, with_keys(KEY, OTHER), requests_per_minute=2))

    def status(key: str) -> int:
        return client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code

    assert [status(KEY) for _ in range(3)] == [200, 200, 429]
    assert status(OTHER) == 200
    clock.now += 30.5
    refused = client.get("/v1/models", headers=GOOD)
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.headers["retry-after"] == "30"
    clock.now += 29.5
    assert [status(KEY) for _ in range(3)] == [200, 200, 429]  # what was refused has not counted
    assert client.get("/health").status_code == 200


def test_strangers_use_up_nobody_s_requests(echo: Echo) -> None:
    client = client_of(echo, gate(keys=with_keys(KEY), requests_per_minute=1))
    for _ in range(3):
        assert client.get("/v1/models").status_code == 401
    assert client.get("/v1/models", headers=GOOD).status_code == 200


def test_in_any_minute_there_are_no_more_requests_than_the_limit(echo: Echo) -> None:
    clock, passed = Clock(), []
    made = gate(clock, requests_per_minute=5)
    for _ in range(2000):
        clock.now += 0.7
        if made.admit({"headers": []}) is None:
            passed.append(clock.now)
    assert len(passed) > 100
    assert all(later - first >= 60 for first, later in zip(passed, passed[5:], strict=False))


class Chat(BaseModel):
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


class Completion(BaseModel, extra="allow"):
    max_tokens: int | None = 16


def test_a_request_that_names_no_length_gets_the_most_that_it_may_have() -> None:
    chat, short, completion = Chat(), Chat(max_tokens=5), Completion()
    for body in (chat, short, completion):
        set_max_tokens(body, Limits(max_tokens=100))
    assert chat.max_completion_tokens == 100
    assert (short.max_tokens, short.max_completion_tokens) == (5, None)
    assert completion.max_tokens == 16
    other = Chat()
    set_max_tokens(other, Limits())
    assert other.max_completion_tokens is None


def test_a_body_that_comes_too_slowly_is_refused(echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.serve.guard.gate.BODY_S", 0.05)
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/x", "headers": []}
    asyncio.run(Guard(echo, gate())(scope, receive, send))
    assert (sent[0]["status"], echo.num_asked) == (408, 0)
