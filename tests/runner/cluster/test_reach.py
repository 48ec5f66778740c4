"""Reports of an address that does not answer, a lost head, and a temporary folder with too long a path."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from runner.cluster import reach
from runner.cluster.reach import Watch, check_reachable, check_temporary_folder
from runner.errors import RunnerError


@pytest.fixture
def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def test_a_port_where_nobody_listens_is_named_with_the_reason(listener: socket.socket) -> None:
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    check_reachable(address)
    check_reachable(f"ray://{address}")
    listener.close()
    with pytest.raises(RunnerError, match=rf"cluster\.address={address}: .*refused"):
        check_reachable(address)


def test_an_address_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *args, **kwargs: (_ for _ in ()).throw(TimeoutError()))
    with pytest.raises(RunnerError, match=r"cluster\.address=10\.0\.0\.1:6379: no answer within 20 s"):
        check_reachable("10.0.0.1:6379")


@pytest.mark.parametrize("address", ["host:port", "127.0.0.1:99999", "no.such.host.invalid:6379"])
def test_what_is_not_an_address_is_named(address: str) -> None:
    with pytest.raises(RunnerError, match=f"cluster.address={address}"):
        check_reachable(address)


@pytest.mark.parametrize("what", ["the head of the Ray cluster", "Ray's node on this machine"])
def test_a_process_that_is_lost_is_told_once_and_one_that_answers_never(
    what: str, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "_EVERY_S", 0.02)
    reasons, lost = [], threading.Event()

    def on_lost(reason: str) -> None:
        reasons.append(reason)
        lost.set()

    address = f"127.0.0.1:{listener.getsockname()[1]}"
    with socket.create_server(("127.0.0.1", 0)) as other:
        there = f"127.0.0.1:{other.getsockname()[1]}"
        watch = Watch({"one that stays": there, what: address}, 0.1, on_lost)
        assert not lost.wait(0.3)
        listener.close()
        assert lost.wait(10)
    assert len(reasons) == 1
    assert reasons[0].startswith(f"{what} at {address} is lost")
    watch.stop()


def test_a_temporary_folder_with_a_long_path_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/tmp/" + "a" * 60)
    with pytest.raises(RunnerError, match="has 65 characters") as caught:
        check_temporary_folder()
    assert "TMPDIR" in caught.value.hint
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/tmp")
    check_temporary_folder()
