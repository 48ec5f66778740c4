"""The proxy in Python closes what is half-sent in time, and no address has more than its part of the connections."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest
import uvicorn

from runner.patches import ray_haproxy, ray_proxy
from stages.serve.health import free_port

pytestmark = [pytest.mark.timeout(60), pytest.mark.filterwarnings("ignore::DeprecationWarning")]
WHOLE = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"


class Quick(ray_proxy.Limited):
    """As in a run, but for the figures."""

    of_address: ClassVar[Counter[str]] = Counter()
    most, headers_s, body_s = 50, 0.5, 0.5


async def app(scope: Any, receive: Any, send: Any) -> None:
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.request":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    """The port of a server on loopback, at every address of it."""
    port = free_port("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, host="0.0.0.0", port=port, http=Quick, lifespan="off"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield port
    finally:
        server.should_exit = True
        await task


async def sent(port: int, data: bytes, address: str = "127.0.0.1") -> tuple[asyncio.StreamReader, Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    writer.write(data)
    return reader, writer


async def answer(port: int, data: bytes, address: str = "127.0.0.1", timeout_s: float = 5) -> bytes:
    """What comes until the server closes the connection, or the first answer; b"" where it closes without one."""
    reader, writer = await sent(port, data, address)
    try:
        await writer.drain()
        return await asyncio.wait_for(reader.read(1024), timeout_s)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def in_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@in_loop
async def test_a_request_that_is_sent_in_time_is_answered() -> None:
    async with serving() as port:
        assert (await answer(port, WHOLE)).startswith(b"HTTP/1.1 200")


@in_loop
async def test_headers_and_bodies_that_do_not_end_are_cut_off() -> None:
    async with serving() as port:
        for half in (b"", WHOLE[:20], WHOLE[:-3]):
            assert await answer(port, half) == b""
        assert not Quick.of_address


@in_loop
async def test_a_body_in_drops_is_cut_off_at_the_same_time() -> None:
    async with serving() as port:
        reader, writer = await sent(port, WHOLE[:-4].replace(b"4", b"400"))
        begun = asyncio.get_running_loop().time()
        while not reader.at_eof() and asyncio.get_running_loop().time() - begun < 5:
            writer.write(b"x")
            await asyncio.sleep(0.1)
            if reader.exception():
                break
        writer.close()
        assert asyncio.get_running_loop().time() - begun < 2


@in_loop
async def test_endless_headers_are_cut_off() -> None:
    async with serving() as port:
        assert await answer(port, WHOLE[:-6] + b"X-Long: " + b"x" * 200_000) == b""


@in_loop
async def test_thousands_of_half_sent_requests_leave_capacity_for_others() -> None:
    async with serving() as port:
        held = [await sent(port, WHOLE[:20]) for _ in range(2000)]
        assert Quick.of_address["127.0.0.1"] <= 50
        assert (await answer(port, WHOLE, "127.0.0.2")).startswith(b"HTTP/1.1 200")
        await asyncio.sleep(1)
        assert (await answer(port, WHOLE)).startswith(b"HTTP/1.1 200")
        for _, writer in held:
            writer.close()


SERVER_BEHIND_HAPROXY = """
import asyncio
import subprocess
import sys
from ray.serve._private import http_util
from ray.serve.config import HTTPOptions
from runner.patches import ray_proxy

async def main():
    ray_proxy._bind_to_loopback(http_util)
    options = HTTPOptions(host="0.0.0.0", port=0)
    task, server = await http_util.start_asgi_http_server(None, options, event_loop=asyncio.get_running_loop())
    while not server.started:
        await asyncio.sleep(0.05)
    print(*server.servers[0].sockets[0].getsockname()[:1])
    task.cancel()

asyncio.run(main())
"""


def test_servers_behind_haproxy_listen_on_loopback() -> None:
    done = subprocess.run([sys.executable, "-c", SERVER_BEHIND_HAPROXY], capture_output=True, text=True)
    assert done.stdout.strip() == "127.0.0.1", done.stderr


def test_ray_serve_finds_and_accepts_what_it_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.serve._private import http_util, proxy, replica, utils

    for module in (proxy, replica):
        assert module.start_asgi_http_server is http_util.start_asgi_http_server
    monkeypatch.setattr("uvicorn.protocols.http.auto.AutoHTTPProtocol", None)
    monkeypatch.setattr("ray.serve._private.constants.RAY_SERVE_ENABLE_HA_PROXY", False)
    path = ray_haproxy.environment()["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"]
    assert http_util.validate_http_proxy_callback_return(utils.call_function_from_import_path(path)) == []
    config = uvicorn.Config(app)
    config.load()
    assert config.http_protocol_class is ray_proxy.Limited


def test_an_address_has_a_part_of_what_the_process_may_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (1000, 4000))
    assert ray_proxy.most_of_an_address() == 250
