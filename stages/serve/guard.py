"""What stands before the endpoint: API keys and the size and rate of requests. Plain ASGI, so answers stream through.

Errors have the shape of OpenAI's API, which its clients turn into exceptions of their own.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.recipe.schema import Limits
from stages.serve.keys import KeyRing

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

HEALTH = "/health"
_MINUTE_S = 60.0
_ANYONE = ""
_DROPPED = 4


@dataclass(frozen=True)
class Refusal:
    """An answer without asking the application. headers: beside the content's own."""

    status: int
    message: str
    code: str
    kind: str = "invalid_request_error"
    headers: Mapping[str, str] | None = None
    param: str | None = None

    def body(self) -> dict[str, Any]:
        """As OpenAI's API words an error."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


NO_KEY = Refusal(
    401,
    "You didn't provide an API key. Send it in the header 'Authorization: Bearer KEY'.",
    "invalid_api_key",
    headers={"WWW-Authenticate": "Bearer"},
)
WRONG_KEY = Refusal(401, "Incorrect API key provided.", "invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


CLOSED = Refusal(503, "The endpoint is not ready.", "not_ready", "server_error")


class Gate:
    """Who may ask, and how often. Until `configure` has been called, nobody may.

    clock: seconds, never going back.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._clock = log, clock
        self._keys: KeyRing | None = None
        self.limits: Limits | None = None
        self._lately: dict[str, deque[float]] = {}

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Take other keys and limits.

        settings: plain values, `{keys, limits}`: of `stages.serve.keys.ring_settings`, and of the recipe.
        """
        keys, limits = settings["keys"], Limits.model_validate(settings["limits"])
        file = Path(keys["file"]) if keys is not None and keys["file"] else None
        self._keys = KeyRing(file, keys["digests"], self._log) if keys is not None else None
        self.limits, self._lately = limits, {}

    def admit(self, scope: Mapping[str, Any]) -> Refusal | None:
        """A refusal for a request without a good key, or for one too many; else the request is counted."""
        if self.limits is None:
            return CLOSED
        owner: str | None = _ANYONE
        if self._keys is not None:
            key = bearer(scope)
            owner = self._keys.owner(key) if key else None
            if owner is None:
                return WRONG_KEY if key else NO_KEY
        return self._count(owner or _ANYONE, self.limits.requests_per_minute)

    def _count(self, owner: str, most: int | None) -> Refusal | None:
        if most is None:
            return None
        now = self._clock()
        if owner not in self._lately:  # keys that nobody uses any more leave nothing behind
            self._lately = {name: times for name, times in self._lately.items() if now - times[-1] < _MINUTE_S}
        times = self._lately.setdefault(owner, deque(maxlen=most))
        if len(times) == most and (wait_s := _MINUTE_S - (now - times[0])) > 0:
            return Refusal(
                429,
                f"Rate limit reached: {most} requests a minute.",
                "rate_limit_exceeded",
                "requests",
                {"Retry-After": str(math.ceil(wait_s))},
            )
        times.append(now)
        return None


class Guard:
    """ASGI middleware: asks the gate, and refuses bodies that are too large. It answers GET /health itself."""

    def __init__(self, app: App, gate: Gate) -> None:
        self._app, self._gate = app, gate

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "websocket":  # the endpoint has none
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if route_of(scope) == HEALTH and scope["method"] in ("GET", "HEAD"):
            await _answer(send, 200, {"status": "ok"}, {})
            return
        refusal, body = self._gate.admit(scope), b""
        if refusal is None:
            refusal, body = await self._read(scope, receive)
        if refusal is not None:
            await _answer(send, refusal.status, refusal.body(), refusal.headers or {})
            return
        # Nothing behind this point needs the key, and what it does not have it cannot log.
        headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"authorization"]
        await self._app({**scope, "headers": headers}, _replay(body, receive), send)

    async def _read(self, scope: Message, receive: Receive) -> tuple[Refusal | None, bytes]:
        """The whole body, whether its length was announced or not, or a refusal once it is too large."""
        assert self._gate.limits is not None  # it has admitted the request
        most = self._gate.limits.max_body_bytes
        # Many clients read no answer before they have sent all, so what is a bit too large is taken in and dropped.
        parts, size, patience = [], 0, _DROPPED * most
        announced = _header(scope, b"content-length")
        if announced.isdigit() and int(announced) > patience:
            return _too_large(most), b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return Refusal(400, "The request ended before its body.", "incomplete_body"), b""
            piece, more = message.get("body", b""), message.get("more_body", False)
            size += len(piece)
            parts.append(piece if size <= most else b"")
            if size > most and (not more or size > patience):
                return _too_large(most), b""
            if not more:
                return None, b"".join(parts)


def limit_tokens(body: Any, limits: Limits) -> Refusal | None:
    """A refusal when a request asks for longer or more answers than the limits allow.

    body: a request to generate, as Ray Serve LLM reads it (a pydantic model); one that does not say how many tokens it
    wants is given the most that it may have.
    """
    given = {**(body.model_extra or {}), **vars(body)}  # vars: reading a deprecated field warns
    most = {"max_tokens": limits.max_tokens, "max_completion_tokens": limits.max_tokens}
    for name, limit in {**most, "n": limits.max_n, "best_of": limits.max_n}.items():
        value = given.get(name)
        if isinstance(value, int) and limit is not None and value > limit:
            message = f"{name} is {value}, and this endpoint allows at most {limit}."
            return Refusal(400, message, "limit_exceeded", param=name)
    if limits.max_tokens is not None and all(given.get(name) is None for name in most):
        for name in ("max_completion_tokens", "max_tokens"):
            if name in vars(body):
                setattr(body, name, limits.max_tokens)
                break
    return None


def route_of(scope: Mapping[str, Any]) -> str:
    """The path below the application's route prefix."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def bearer(scope: Mapping[str, Any]) -> str:
    """The key of `Authorization: Bearer KEY`, or ""."""
    kind, _, key = _header(scope, b"authorization").decode("latin-1").partition(" ")
    return key.strip() if kind.lower() == "bearer" else ""


def _header(scope: Mapping[str, Any], name: bytes) -> bytes:
    return next((bytes(value) for each, value in scope["headers"] if each.lower() == name), b"")


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"The request's body is larger than {most} bytes.", "request_too_large")


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body at once, and then what the server has to say (that the client has gone)."""
    told = False

    async def replayed() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


async def _answer(send: Send, status: int, content: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    body = json.dumps(content).encode()
    own = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    listed = [(name.lower().encode(), value.encode()) for name, value in own.items()]
    await send({"type": "http.response.start", "status": status, "headers": listed})
    await send({"type": "http.response.body", "body": body})
