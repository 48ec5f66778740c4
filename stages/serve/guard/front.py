"""What stands before the endpoint's API in each replica: keys, limits, and the bodies of errors.

Imports starlette and FastAPI: the replica imports this module, and nothing else does.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse

from stages.serve.guard.costs import set_max_tokens
from stages.serve.guard.errors import Errors, refusal_of, refusal_of_status, refusal_of_validation
from stages.serve.guard.gate import Gate, Guard, TryGrammar, WrongValues
from stages.serve.guard.names import parameters_of_routes
from stages.serve.guard.refusal import Refusal


class GuardedFront:
    """The endpoint's front (`stages.engines.work.Front`)."""

    def __init__(self) -> None:
        self._gate = Gate(logging.getLogger("ray.serve"))

    def configure(self, settings: Mapping[str, Any]) -> None:
        """settings: `guard` of `stages.serve.config.api_settings`."""
        self._gate.configure(dict(settings))

    def complete(self, body: Any) -> None:
        """Give a request that says nothing of its length the most of `serve.limits`."""
        if self._gate.limits:
            set_max_tokens(body, self._gate.limits)

    def wrap(
        self,
        app: FastAPI,
        status_of: Callable[[Exception, str], int],
        try_grammar: TryGrammar,
        wrong_values: WrongValues = lambda body: (),
    ) -> FastAPI:
        """The application with the guard as its outermost layer, and without what it opens to everybody.

        Ray's CORS headers let any web page send requests from a visitor's browser, to loopback as well. Its pages of
        documentation describe more than an endpoint of models needs to say. `Errors` answers for exceptions.
        """
        pages = {app.docs_url, app.redoc_url, app.openapi_url, app.swagger_ui_oauth2_redirect_url}
        app.router.routes = [route for route in app.router.routes if getattr(route, "path", None) not in pages]
        app.docs_url = None
        app.add_exception_handler(Exception, _failure_by(status_of))
        app.add_exception_handler(HTTPException, _status)
        app.add_exception_handler(RequestValidationError, _invalid)
        replaced: tuple[Any, ...] = (CORSMiddleware, BaseHTTPMiddleware)
        kept = [layer for layer in app.user_middleware if layer.cls not in replaced]
        guard = Middleware(Guard, self._gate, parameters_of_routes(app.router.routes), try_grammar, wrong_values)
        app.user_middleware = [guard, *kept, Middleware(Errors, status_of)]
        return app


def _failure_by(status_of: Callable[[Exception, str], int]) -> Callable[[Request, Exception], Awaitable[JSONResponse]]:
    """For what the layers around `Errors` raise."""

    async def failure(request: Request, error: Exception) -> JSONResponse:
        request_id = request.scope.get("state", {}).get("request_id", "")
        return response(refusal_of(error, status_of(error, request_id), request_id))

    return failure


async def _status(request: Request, error: Exception) -> JSONResponse:
    """What Starlette and FastAPI raise: no such route, no such method."""
    assert isinstance(error, HTTPException)
    return response(refusal_of_status(error.status_code, str(error.detail)), error.headers)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return response(refusal_of_validation(error.errors()))


def response(refusal: Refusal, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The refusal as a response."""
    return JSONResponse(refusal.body(), status_code=refusal.status, headers=dict(headers or {}))
