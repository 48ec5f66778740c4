"""The endpoint's answer to an exception of its application, as Ray Serve LLM words it, but as plain ASGI.

Ray's own is a function on Starlette's BaseHTTPMiddleware, which hands each message of an answer from one task to
another through a queue: work for every request and every message of a stream, in the process that all of them pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Errors:
    """Answers with a body of JSON when the application raises before its answer has begun.

    body_of: the error's body of an exception and the request's id, with the HTTP status as its `error.code`.
    """

    def __init__(self, app: ASGIApp, body_of: Callable[[Exception, str], Any]) -> None:
        self._app, self._body_of = app, body_of

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
            body = self._body_of(error, scope.get("state", {}).get("request_id", ""))
            await JSONResponse(body.model_dump(), status_code=body.error.code)(scope, receive, send)
