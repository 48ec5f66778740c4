"""A slow HTTP server in a process of its own, which counts the clients that left, and Ray Serve's HAProxy before it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from runner.patches import ray_haproxy
from stages.serve.health import free_port

ANSWER_S = 30.0
COUNTS = {"begun": 0, "left": 0, "done": 0}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer with a character a tenth of a second (?stream), or at the end; /counts tells what became of requests."""
    if scope["type"] != "http":
        return
    if scope["path"] == "/counts":
        await answer(send, json.dumps(COUNTS).encode())
        return
    if scope["path"] == "/-/healthz":
        await answer(send, b"success")
        return
    if scope["path"] == "/headers":
        await answer(send, repr(scope["headers"]).encode())
        return
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.disconnect":
        return
    if scope["path"] == "/pause":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"one ", b"two"):
            await send({"type": "http.response.body", "body": part, "more_body": part != b"two"})
            await asyncio.sleep(2.5)
        return
    COUNTS["begun"] += 1
    COUNTS["left" if await slow(b"stream" in scope["query_string"], receive, send) else "done"] += 1


async def slow(stream: bool, receive: Any, send: Any) -> bool:
    """Whether the client left before the end."""
    gone = asyncio.ensure_future(receive())
    if stream:
        await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(int(ANSWER_S * 10)):
        await asyncio.wait([gone], timeout=0.1)
        if gone.done():
            return True
        if stream:
            await send({"type": "http.response.body", "body": b".", "more_body": True})
    gone.cancel()
    if not stream:
        await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})
    return False


async def answer(send: Any, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def server(port: int) -> Iterator[None]:
    """The slow server at a port of loopback."""
    code = (
        "from tests.runner.patches.slow_server import app; import uvicorn;"
        f"uvicorn.run(app, port={port}, lifespan='off', log_level='error')"
    )
    with ended(subprocess.Popen([sys.executable, "-c", code])):
        wait_for(port)
        yield


@contextmanager
def haproxy(folder: Path, port: int, backend: int, **settings: Any) -> Iterator[psutil.Process]:
    """HAProxy at a port of loopback, with the configuration that Ray Serve renders for a replica at `backend`."""
    binary = ray_haproxy._binary()
    assert binary
    started = ray_haproxy._folder(binary)
    assert started
    path = folder / "haproxy.cfg"
    path.write_text(rays_configuration(folder, port, backend, **settings))
    command = [started / "haproxy", "-db", "-f", path]
    with ended(subprocess.Popen(command, stderr=subprocess.DEVNULL)) as process:
        wait_for(port)
        yield psutil.Process(process.pid)


def rays_configuration(folder: Path, port: int, backend: int, **settings: Any) -> str:
    from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
    from ray.serve.config import HTTPOptions

    config = HAProxyConfig(
        socket_path=str(folder / "s"), metrics_port=free_port("127.0.0.1", 0), stats_port=free_port("127.0.0.1", 0),
        http_options=HTTPOptions(host="127.0.0.1", port=port), has_received_routes=True, has_received_servers=True,
        metrics_enabled=False, server_state_base=str(folder), server_state_file=str(folder / "state"),
        **{"maxconn": 400, **settings},
    )  # fmt: skip
    replica = ServerConfig(name="replica", host="127.0.0.1", port=backend)
    backends = {"app": BackendConfig(name="app", path_prefix="/", app_name="app", servers=[replica])}
    path = folder / "rendered.cfg"
    HAProxyApi(config, backends, config_file_path=str(path))._generate_config_file_internal()
    return path.read_text()


def counts(url: str) -> dict[str, int]:
    found: dict[str, int] = httpx.get(f"{url}/counts", trust_env=False).json()
    return found


def wait_for(port: int, timeout_s: float = 20.0) -> None:

    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{port}/-/healthz", trust_env=False, timeout=2)
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing answers at port {port}")


@contextmanager
def ended(process: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    try:
        yield process
    finally:
        process.kill()
        process.wait()
