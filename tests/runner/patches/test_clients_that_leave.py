"""HAProxy passes on that a client has left, however and whenever, and holds half-sent requests for a short time."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from stages.serve.health import free_port
from tests.runner.patches.slow_server import counts, haproxy, server

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, psutil.Process]]:
    """URL of HAProxy before the slow server, with 400 connections in all."""
    back, front = free_port("127.0.0.1", 0), free_port("127.0.0.1", 0)
    with server(back), haproxy(tmp_path_factory.mktemp("haproxy"), front, back, maxconn=800) as process:
        yield f"http://127.0.0.1:{front}", process


def leave(url: str, after_s: float) -> None:
    """Send a request and close the connection after the time."""
    with suppress(httpx.HTTPError), httpx.Client(trust_env=False, timeout=after_s) as client:
        client.post(f"{url}/x", content=b'{"a": 1}' * 50)


def leave_roughly(url: str, after_s: float, stream: bool, reset: bool) -> None:
    """Close by FIN or RST, without a word."""
    port = int(url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as client:
        path = "/x?stream" if stream else "/x"
        client.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        time.sleep(after_s)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def cpu_share(process: psutil.Process, seconds: float) -> float:
    before = sum(process.cpu_times()[:2])
    time.sleep(seconds)
    return (sum(process.cpu_times()[:2]) - before) / seconds


def new_counts(url: str, before: dict[str, int]) -> dict[str, int]:
    return {name: value - before[name] for name, value in counts(url).items()}


def test_every_client_that_gives_up_is_passed_on_and_haproxy_rests(up: tuple[str, psutil.Process]) -> None:
    url, process = up
    before = counts(url)
    for _ in range(20):
        leave(url, 0.3)
    assert cpu_share(process, 2) < 0.05
    assert new_counts(url, before) == {"begun": 20, "left": 20, "done": 0}


def test_two_hundred_clients_that_leave_at_random_moments_are_all_passed_on(up: tuple[str, psutil.Process]) -> None:
    url, process = up
    before, chance = counts(url), random.Random(7)
    moments = [(chance.uniform(0.05, 2), chance.random() < 0.5, chance.random() < 0.5) for _ in range(200)]
    with ThreadPoolExecutor(50) as pool:
        list(pool.map(lambda moment: leave_roughly(url, *moment), moments))
    time.sleep(1)
    found = new_counts(url, before)
    assert found["done"] == 0
    assert found["begun"] == found["left"] >= 190  # who left at once may not have been a request yet
    assert cpu_share(process, 2) < 0.05


def test_a_client_cannot_turn_off_the_watch_over_disconnects(up: tuple[str, psutil.Process]) -> None:
    header = {"X-Request-Disconnect-Disabled": "?1", "X-Mine": "1"}
    seen = httpx.get(f"{up[0]}/headers", headers=header, trust_env=False).text
    assert "x-mine" in seen
    assert "disconnect-disabled" not in seen


def test_a_body_that_stops_is_cut_off_and_an_answer_that_pauses_is_not(tmp_path: Path) -> None:
    back, front = free_port("127.0.0.1", 0), free_port("127.0.0.1", 0)
    with server(back), haproxy(tmp_path, front, back, timeout_client_s=1):
        assert httpx.post(f"http://127.0.0.1:{front}/pause", content=b"{}", trust_env=False).text == "one two"
        with socket.create_connection(("127.0.0.1", front), timeout=10) as client:
            client.sendall(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
            assert client.recv(4096).startswith(b"HTTP/1.1 4")


def test_thousands_of_half_sent_requests_leave_capacity_for_others(tmp_path: Path) -> None:
    """From one address: 3,000 connections that never end their headers; a client of another address is answered."""
    back, front = free_port("127.0.0.1", 0), free_port("127.0.0.1", 0)
    held: list[socket.socket] = []
    with server(back), haproxy(tmp_path, front, back, maxconn=800):
        url = f"http://127.0.0.1:{front}"
        try:
            for _ in range(3000):
                with suppress(ConnectionResetError):  # one over the limit may be refused before it is connected
                    held.append(half_sent(front))
            time.sleep(0.5)
            with httpx.Client(
                trust_env=False, timeout=5, transport=httpx.HTTPTransport(local_address="127.0.0.2")
            ) as c:
                assert c.get(f"{url}/counts").status_code == 200
            open_now = sum(1 for each in held if is_open(each))
            assert 0 < open_now <= 200  # a quarter of all
            end = time.monotonic() + 20
            while any(map(is_open, held)) and time.monotonic() < end:
                time.sleep(0.5)
            assert not any(map(is_open, held))  # the time for headers is over
            assert httpx.get(f"{url}/counts", trust_env=False).status_code == 200
        finally:
            for each in held:
                each.close()


def half_sent(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    with suppress(OSError):
        client.sendall(b"POST /x HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    return client


def is_open(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(4096, socket.MSG_PEEK) == b"never"
    except BlockingIOError:
        return True
    except OSError:
        return False
