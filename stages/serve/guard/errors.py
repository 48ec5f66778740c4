"""The endpoint's answer to an exception of its application: one sentence in OpenAI's shape, without internals.

Ray's own is a function on Starlette's BaseHTTPMiddleware, which hands each message of an answer from one task to
another through a queue: work for every request and every message of a stream, in the process that all of them pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stages.serve.guard.refusal import Refusal

_MAX_MESSAGE = 500
_CODES = {404: "not_found", 405: "method_not_allowed", 408: "request_timeout", 429: "rate_limit_exceeded"}
_PREFIX = re.compile(r"^(?:Value error, |Assertion failed, )|\[\d\d:\d\d:\d\d\] \S+?:\d+: ")
_NAMED_AGAIN = re.compile(r" \(parameter=\w+(?:, value=.*)?\)\.?\Z", re.DOTALL)  # vLLM's, after its sentence
# Names of classes by which pydantic tells the members of a union apart.
_OF_UNION = re.compile(r"^(?:[A-Z]\w*|function-.*|list\[.*|dict\[.*|str|int|float|bool|literal\[.*)$")


class Errors:
    """Answers with a body of JSON when the application raises before its answer has begun.

    status_of: the HTTP status of an exception and the request's id; it also logs the exception.
    """

    def __init__(self, app: ASGIApp, status_of: Callable[[Exception, str], int]) -> None:
        self._app, self._status_of = app, status_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def note(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, note)
        except Exception as error:
            if begun:  # it is for the server to break the connection off
                raise
            request_id = scope.get("state", {}).get("request_id", "")
            refusal = refusal_of(error, self._status_of(error, request_id), request_id)
            await JSONResponse(refusal.body(), status_code=refusal.status)(scope, receive, send)


def refusal_of(error: Exception, status: int, request_id: str) -> Refusal:
    """What a client is told of an exception: its message for its own mistake, else the request's id to ask with."""
    if status >= 500 and _while_reading_the_body(error):
        return Refusal(400, "A value in the request's body has a wrong type.", "invalid_value")
    if status >= 500:
        return Refusal(status, f"The endpoint failed (request {request_id}).", "internal_error", "server_error")
    if callable(errors := getattr(error, "errors", None)):  # pydantic's
        return refusal_of_validation(errors())
    message = getattr(error, "message", None) or getattr(error, "detail", None) or str(error)
    return refusal_of_status(status, str(message), getattr(error, "param", None) or getattr(error, "parameter", None))


def _while_reading_the_body(error: Exception) -> bool:
    """Whether FastAPI's reading of the body raised it, where a request model's validator did not expect a value."""
    place = error.__traceback__
    while place is not None:
        if place.tb_frame.f_code.co_name == "request_body_to_args":
            return True
        place = place.tb_next
    return False


def refusal_of_status(status: int, message: str, param: str | None = None) -> Refusal:
    """A refusal by its status. message: made one line of bounded length."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return Refusal(status, sentence(message), _CODES.get(status), kind, param=param)


def refusal_of_validation(errors: Sequence[Mapping[str, Any]]) -> Refusal:
    """A 400 of pydantic's errors: the deepest one, which of a union's is the one that was meant."""
    unknown: Mapping[str, Any] = {"loc": (), "msg": "The request is invalid"}
    error = max(errors, key=lambda each: len(_path(each)), default=unknown)
    cause = error.get("ctx", {}).get("error")
    param = getattr(cause, "parameter", None) or ".".join(_path(error)) or None
    message = sentence(str(error["msg"]))
    message = f"{param}: {message}" if param and param not in message else message
    return Refusal(400, message, "invalid_value", param=param)


def _path(error: Mapping[str, Any]) -> list[str]:
    """Where in the body: pydantic's place without the names of a union's members."""
    places = [place for place in error["loc"] if place != "body"]
    return [str(place) for place in places if isinstance(place, int) or not _OF_UNION.match(str(place))]


def sentence(message: str) -> str:
    """One line without places in a library's code, of bounded length, that ends with a full stop."""
    text = " ".join(_NAMED_AGAIN.sub("", _PREFIX.sub("", message)).split())
    text = f"{text[:_MAX_MESSAGE]}..." if len(text) > _MAX_MESSAGE else text
    return text if text.endswith((".", "?", "!")) else f"{text}."
