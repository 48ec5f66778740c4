"""What a stage leaves behind is named and ended, if this run started it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from runner.cluster.leaks import Leaks

SLEEP = ["sleep", "600"]
# Starts a sleeper and ends: its child is an orphan.
ORPHAN = "import subprocess as s; print(s.Popen(['sleep', '600'], stdout=s.DEVNULL).pid, flush=True)"


@pytest.fixture
def leaks() -> Iterator[Leaks]:
    before = Leaks()
    before.begin(ray_session=False)
    yield before
    before.sweep(ray_session=False, grace_s=0.0)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process with its command line: `Popen` returns a moment before the kernel has written it down."""
    process = subprocess.Popen(SLEEP)
    try:
        end = time.monotonic() + 10
        while psutil.Process(process.pid).cmdline() != SLEEP:
            assert time.monotonic() < end, psutil.Process(process.pid).cmdline()
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()


def ended(pid: int) -> bool:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def test_a_stage_that_leaves_nothing_is_not_waited_for(leaks: Leaks) -> None:
    assert leaks.sweep(ray_session=False, grace_s=3600.0) == []


def test_a_process_is_named_and_ended(leaks: Leaks, sleeper: subprocess.Popen[bytes]) -> None:
    assert leaks.sweep(ray_session=False, grace_s=0.0) == [f"left behind: process {sleeper.pid} (sleep 600), ended"]
    assert sleeper.wait(timeout=10) == -9


def test_an_orphan_in_a_session_of_its_own_is_found(leaks: Leaks) -> None:
    made = subprocess.run([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, check=True, start_new_session=True)
    pid = int(made.stdout)
    assert leaks.sweep(ray_session=False, grace_s=0.0) == [f"left behind: process {pid} (sleep 600), ended"]
    assert ended(pid)


def test_what_was_there_before_the_run_is_left_alone(sleeper: subprocess.Popen[bytes]) -> None:
    assert Leaks().sweep(ray_session=False, grace_s=0.0) == []
    assert sleeper.poll() is None


def test_what_is_being_taken_down_has_time_for_it(leaks: Leaks) -> None:
    process = subprocess.Popen(["sleep", "0.4"])
    assert leaks.sweep(ray_session=False, grace_s=60.0) == []
    assert process.wait() == 0


def test_a_process_that_listens_is_named_with_its_port(leaks: Leaks) -> None:
    code = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); "
    with subprocess.Popen([sys.executable, "-c", code + "time.sleep(600)"], stdout=subprocess.PIPE) as process:
        assert process.stdout
        port = int(process.stdout.readline())
        (warning,) = leaks.sweep(ray_session=False, grace_s=0.0)
    assert f"which listens on {port}, ended" in warning


def test_a_listener_in_this_process_is_named(leaks: Leaks) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert leaks.sweep(False, grace_s=0.0) == [f"left behind: a listener on port {port} in this process"]
        leaks.begin(ray_session=False)
        assert leaks.sweep(False, grace_s=0.0) == []


def test_memory_of_a_gpu_that_a_process_holds_is_named(leaks: Leaks, monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen(SLEEP)
    monkeypatch.setattr("runner.cluster.leaks._gpu_memory", lambda: {process.pid: 3 << 30})
    (warning,) = leaks.sweep(ray_session=False, grace_s=0.0)
    assert "which holds 3072 MiB of a GPU, ended" in warning
    process.wait()
