"""What stands before the endpoint: keys, and what a request may be and ask for. Plain ASGI: answers stream through."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from runner.text import count_text
from stages.engines.input_made import when_input_is_made
from stages.sections.serve import Limits
from stages.serve.guard.body import read_object
from stages.serve.guard.costs import refuse_costly, refuse_many
from stages.serve.guard.grammars import grammars_of, refuse_large
from stages.serve.guard.images import count_pixels, images_of
from stages.serve.guard.keys import KeyRing
from stages.serve.guard.kinds import refuse_other_kinds
from stages.serve.guard.messages import refuse_empty, refuse_unused
from stages.serve.guard.names import Parameters, refuse_unknown
from stages.serve.guard.pixels import PixelBudget
from stages.serve.guard.refusal import (
    CLOSED,
    ENCODED,
    INCOMPLETE,
    NO_KEY,
    TOO_SLOW,
    WRONG_KEY,
    Refusal,
    RefusedError,
    bad_request,
    too_large,
)
from stages.serve.guard.shapes import refuse_malformed

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
# (kind, value, the value as text, seconds) -> why the engine cannot use it, or "".
TryGrammar = Callable[[str, Any, str, float], Awaitable[str]]
# A request's body -> parameter, its value, and a clause after it, of each value that the engine cannot compute with.
WrongValues = Callable[[Mapping[str, Any]], Iterable[tuple[str, Any, str]]]

HEALTH = "/health"
BODY_S = 120.0
_MINUTE_S = 60.0
_ANYONE = ""
_DROPPED = 4


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

        settings: plain values, `{keys, limits}`: of `stages.serve.guard.keys.ring_settings`, and of the recipe.
        """
        keys, limits = settings["keys"], Limits.model_validate(settings["limits"])
        file = Path(keys["file"]) if keys is not None and keys["file"] else None
        self._keys = KeyRing(file, keys["digests"], self._log) if keys is not None else None
        self.limits, self._lately = limits, {}

    def admit(self, scope: Mapping[str, Any]) -> Refusal | None:
        """A refusal for a request without a good key, or for one too many; else it is counted as one answer."""
        if self.limits is None:
            return CLOSED
        owner = self._owner(scope)
        if isinstance(owner, Refusal):
            return owner
        return self._count(owner, 1)

    def charge(self, scope: Mapping[str, Any], answers: int) -> Refusal | None:
        """Count the further answers of a request that was admitted, or refuse it; then none of it counts."""
        most = self.limits.requests_per_minute if self.limits else None
        if answers == 1 or most is None:
            return None
        owner = self._owner(scope)
        if isinstance(owner, Refusal):
            return owner
        refusal = self._count(owner, answers - 1) if answers <= most else _too_many(most, answers)
        if refusal is not None and self._lately.get(owner):
            self._lately[owner].pop()
        return refusal

    def _owner(self, scope: Mapping[str, Any]) -> str | Refusal:
        if self._keys is None:
            return _ANYONE
        key = bearer(scope)
        return (self._keys.owner(key) if key else None) or (WRONG_KEY if key else NO_KEY)

    def _count(self, owner: str, answers: int) -> Refusal | None:
        most = self.limits.requests_per_minute if self.limits else None
        if most is None:
            return None
        now = self._clock()
        if owner not in self._lately:  # keys that nobody uses any more leave nothing behind
            lately = self._lately.items()
            self._lately = {name: times for name, times in lately if times and now - times[-1] < _MINUTE_S}
        times = self._lately.setdefault(owner, deque(maxlen=most))
        over = len(times) + answers - most
        if over > 0 and (wait_s := _MINUTE_S - (now - times[over - 1])) > 0:
            return Refusal(
                429,
                f"Rate limit reached: {count_text(most, 'request')} a minute.",
                "rate_limit_exceeded",
                "requests",
                {"Retry-After": str(math.ceil(wait_s))},
            )
        times.extend([now] * answers)
        return None


def _too_many(most: int, answers: int) -> Refusal:
    message = f"The request asks for {count_text(answers, 'answer')}, and this endpoint gives {most} a minute."
    return Refusal(400, message, "limit_exceeded")


class Guard:
    """ASGI middleware: asks the gate, and refuses bodies that no route reads. It answers GET /health itself.

    parameters: of each route that reads JSON, by path (`stages.serve.guard.names`).
    """

    def __init__(
        self,
        app: App,
        gate: Gate,
        parameters: Mapping[str, Parameters] | None = None,
        try_grammar: TryGrammar | None = None,
        wrong_values: WrongValues = lambda body: (),
    ) -> None:
        self._app, self._gate, self._pixels = app, gate, PixelBudget()
        self._parameters, self._try_grammar, self._wrong_values = parameters or {}, try_grammar, wrong_values

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
        try:
            body, pixels = await self._admitted(scope, receive)
        except RefusedError as error:
            refusal = error.refusal
            await _answer(send, refusal.status, refusal.body(), refusal.headers or {})
            return
        # Nothing behind this point needs the key, and what it does not have it cannot log.
        headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"authorization"]
        async with self._pixels.held(pixels, receive) as give_back:
            if give_back is not None:
                with when_input_is_made(give_back):
                    await self._app({**scope, "headers": headers}, _replay(body, receive), send)

    async def _admitted(self, scope: Message, receive: Receive) -> tuple[bytes, int]:
        """The body of a request that may pass, and the pixels of its images. Raises RefusedError."""
        if refusal := self._gate.admit(scope):
            raise RefusedError(refusal)
        try:
            async with asyncio.timeout(BODY_S):
                body = await self._read(scope, receive)
        except TimeoutError:
            raise RefusedError(TOO_SLOW) from None
        parameters = self._parameters.get(route_of(scope))
        if parameters is not None and scope["method"] == "POST":
            return body, await self._check(scope, body, parameters)
        return body, 0

    async def _check(self, scope: Message, body: bytes, parameters: Parameters) -> int:
        """The pixels of its images. Raises RefusedError for what the route would not read, or what exceeds a limit."""
        assert self._gate.limits is not None  # it has admitted the request
        if _header(scope, b"content-encoding").strip().lower() not in (b"", b"identity"):
            raise RefusedError(ENCODED)
        given = read_object(_header(scope, b"content-type").decode("latin-1"), body)
        refuse_many(given)
        refuse_unknown(given, parameters.names)
        refuse_other_kinds(given, parameters.kinds)
        refuse_empty(given)
        refuse_unused(given)
        refuse_malformed(given)
        for param, value, why in self._wrong_values(given):
            joined = "and" if why.startswith("must") else "which"
            raise bad_request(f"{param[:200]} is {_short(value)}, {joined} {why}.", param[:200])
        images = list(images_of(given))
        pixels = await asyncio.to_thread(count_pixels, images) if images else 0
        if refusal := self._gate.charge(scope, refuse_costly(given, self._gate.limits)):
            raise RefusedError(refusal)
        grammars = list(grammars_of(given))
        refuse_large(grammars, self._gate.limits.max_grammar_bytes)
        for grammar in grammars if self._try_grammar else ():
            assert self._try_grammar is not None
            timeout_s = self._gate.limits.grammar_timeout_s
            if why := await self._try_grammar(grammar.kind, grammar.value, grammar.text(), timeout_s):
                raise bad_request(f"{grammar.param} cannot be used: {why}.", grammar.param, "invalid_grammar")
        return pixels

    async def _read(self, scope: Message, receive: Receive) -> bytes:
        """The whole body, whether its length was announced or not. Raises RefusedError once it is too large."""
        assert self._gate.limits is not None  # it has admitted the request
        most = self._gate.limits.max_body_bytes
        # Many clients read no answer before they have sent all, so what is a bit too large is taken in and dropped.
        parts, size, patience = [], 0, _DROPPED * most
        announced = _header(scope, b"content-length")
        if announced.isdigit() and int(announced) > patience:
            raise RefusedError(too_large(most))
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RefusedError(INCOMPLETE)
            piece, more = message.get("body", b""), message.get("more_body", False)
            size += len(piece)
            parts.append(piece if size <= most else b"")
            if size > most and (not more or size > patience):
                raise RefusedError(too_large(most))
            if not more:
                return b"".join(parts)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 50 else f"{text[:50]}..."


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


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body at once, and then what the server has to say (that the client has gone)."""
    reported = False

    async def replayed() -> Message:
        nonlocal reported
        if reported:
            return await receive()
        reported = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


async def _answer(send: Send, status: int, content: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    body = json.dumps(content).encode()
    own = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    listed = [(name.lower().encode(), value.encode()) for name, value in own.items()]
    await send({"type": "http.response.start", "status": status, "headers": listed})
    await send({"type": "http.response.body", "body": body})
