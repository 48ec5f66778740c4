"""Ray Serve's HTTP servers as a run has them: limits for slow clients in the Python proxy, loopback behind HAProxy.

Ray Serve calls `prepare` in each process that is about to start an HTTP server
(RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH). uvicorn, which it starts, waits for the rest of a request without end and
takes any number of connections; Ray Serve binds replicas and the fallback proxy, which HAProxy alone is to reach, to
the address of the endpoint.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import sys
from collections import Counter
from types import ModuleType
from typing import Any, ClassVar

from uvicorn.protocols.http import auto
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_LOOPBACK = "127.0.0.1"
_HEADERS_S, _BODY_S = 15.0, 120.0
_HEADER_BYTES = 1 << 16
_SHARE = 4  # no address has more than this part of the files that the process may open


def prepare() -> list[Any]:
    """Patch this process before its server starts. Returns no middleware."""
    import ray.util
    from ray.serve._private.constants import RAY_SERVE_ENABLE_HA_PROXY

    if not RAY_SERVE_ENABLE_HA_PROXY:
        auto.AutoHTTPProtocol = Limited
    elif ray.util.get_node_ip_address() == _LOOPBACK:
        from ray.serve._private import http_util

        _bind_to_loopback(http_util)
    return []


class _LoopbackSocket(socket.socket):
    """A socket that is bound to loopback, whatever address it is asked for."""

    def bind(self, address: Any) -> None:
        super().bind((_LOOPBACK, *address[1:]))


def _bind_to_loopback(module: Any) -> None:
    """Have the module's servers listen on loopback.

    Patched is what the module itself looks up when it starts one: Ray copies the globals of its proxy's class into the
    proxy's process, where a name that is replaced in the proxy's module has no effect.
    """
    own = ModuleType("socket")
    own.__dict__.update(vars(socket) | {"socket": _LoopbackSocket})
    module.socket = own


def most_of_an_address() -> int:
    """How many connections one address may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, soft // _SHARE) if soft != resource.RLIM_INFINITY else sys.maxsize


class Limited(HttpToolsProtocol):
    """uvicorn's protocol with a limit of connections by address, and of the time and size of a request's parts.

    Whoever exceeds one has the connection closed, without an answer.
    """

    of_address: ClassVar[Counter[str]] = Counter()
    most = most_of_an_address()
    headers_s, body_s = _HEADERS_S, _BODY_S

    _timer: asyncio.TimerHandle | None = None
    _address: str | None = None
    _num_bytes = 0
    _in_headers = True

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        self.of_address[self._address] += 1
        if self.of_address[self._address] > self.most:
            transport.abort()
        else:
            self._wait(self.headers_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait(None)
        if self._address is not None:
            self.of_address[self._address] -= 1
            if not self.of_address[self._address]:
                del self.of_address[self._address]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._num_bytes = self._num_bytes + len(data) if self._in_headers else 0
        if self._num_bytes > _HEADER_BYTES:
            self.transport.abort()

    def on_message_begin(self) -> None:
        self._in_headers = True
        self._wait(self.headers_s)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._wait(self.body_s)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._wait(None)
        super().on_message_complete()

    def _wait(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self.transport.abort) if seconds is not None else None
