"""What stands before the endpoint's API in each replica: keys, limits, and the bodies of errors.

Imports starlette and FastAPI: the replica imports this module, and nothing else does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse

from stages.serve.errors import Errors
from stages.serve.guard import Gate, Guard, limit_tokens


class GuardedFront:
    """The endpoint's front (`stages.engines.work.Front`)."""

    def __init__(self) -> None:
        self._gate = Gate(logging.getLogger("ray.serve"))

    def configure(self, settings: Mapping[str, Any]) -> None:
        """settings: `guard` of `stages.serve.config.api_settings`."""
        self._gate.configure(dict(settings))

    def refuse(self, body: Any) -> JSONResponse | None:
        """The response to a request that asks for more than `serve.limits`; one that says nothing gets the most."""
        if self._gate.limits and (refusal := limit_tokens(body, self._gate.limits)):
            return JSONResponse(refusal.body(), status_code=refusal.status)
        return None

    def wrap(self, app: FastAPI, error_body: Callable[[Exception, str], Any]) -> FastAPI:
        """The application with the guard as its outermost layer, and without what it opens to everybody.

        Ray's CORS headers let any web page send requests from a visitor's browser, to loopback as well. Its pages of
        documentation describe more than an endpoint of models needs to say. `Errors` answers for exceptions.
        """
        pages = {app.docs_url, app.redoc_url, app.openapi_url, app.swagger_ui_oauth2_redirect_url}
        app.router.routes = [route for route in app.router.routes if getattr(route, "path", None) not in pages]
        app.docs_url = None
        replaced: tuple[Any, ...] = (CORSMiddleware, BaseHTTPMiddleware)
        kept = [layer for layer in app.user_middleware if layer.cls not in replaced]
        app.user_middleware = [Middleware(Guard, self._gate), *kept, Middleware(Errors, error_body)]
        return app
