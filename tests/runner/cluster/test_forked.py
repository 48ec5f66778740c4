"""Code of others in a copy of this process: it ends in time, whatever it does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from runner.cluster import forked
from runner.cluster.forked import Standing, Step, call
from runner.errors import RunnerError, UsageError


def limited(function: Callable[[], Any], seconds: float | None = 5.0) -> Any:
    return call(function, "the code", "Correct it.", seconds)


def digits() -> str:
    """One call that holds Python's lock for hours."""
    sys.set_int_max_str_digits(0)
    return str(3**50_000_000)


def test_the_result_is_that_of_the_function_and_nothing_else_changes() -> None:
    seen: list[int] = []

    def work() -> tuple[int, int]:
        seen.append(1)
        return os.getpid(), len(seen)

    pid, count = limited(work)
    assert (pid != os.getpid(), count, seen) == (True, 1, [])
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("seconds", [0.5, None])
def test_a_call_that_holds_python_s_lock_is_ended(seconds: float | None) -> None:
    def work() -> str:
        with Step(0.5, 1 << 30):
            return digits()

    begin = time.monotonic()
    with pytest.raises(RunnerError, match=r"the code did not end within 0\.5 s"):
        limited(work, seconds)
    assert time.monotonic() - begin < 5
    assert psutil.Process().children() == []


def test_without_a_limit_for_all_of_it_only_a_step_has_one() -> None:
    def work() -> str:
        with Step(0.1, 1 << 30):
            pass
        time.sleep(0.5)
        return "done"

    assert limited(work, None) == "done"


def test_a_step_has_little_memory_and_what_is_around_it_has_not() -> None:
    def inside() -> int:
        with Step(5, 64 << 20):
            return len(bytes(256 << 20))

    def around() -> int:
        with Step(5, 64 << 20):
            pass
        return len(bytes(256 << 20))

    with pytest.raises(RunnerError, match="the code needs too much memory"):
        limited(inside)
    assert limited(around) == 256 << 20


def test_memory_that_grows_between_steps_is_not_counted_against_them() -> None:
    def work() -> int:
        kept = []
        for _ in range(256):
            with Step(5, 64 << 20):
                pass
            kept.append(b"1" * (1 << 20))
        with Step(5, 64 << 20):
            kept.append(b"1" * (1 << 20))
        return len(kept)

    assert limited(work) == 257


def test_a_step_elsewhere_has_no_limit() -> None:
    with Step(0.0, 0):
        assert len(bytes(64 << 20)) == 64 << 20


@pytest.mark.parametrize("end", [lambda: os._exit(3), lambda: os.kill(os.getpid(), signal.SIGKILL)])
def test_a_process_that_dies_is_an_error(end: Callable[[], None]) -> None:
    with pytest.raises(RunnerError, match="the code needs too much memory, or makes its process fail"):
        limited(end)


def test_what_the_function_raises_is_told() -> None:
    def refuse() -> None:
        raise UsageError("no", "do so")

    with pytest.raises(RunnerError, match="no") as caught:
        limited(refuse)
    assert caught.value.hint == "do so"
    with pytest.raises(RuntimeError, match=r"in <lambda>\n[\s\S]*ValueError: .*'own'"):
        limited(lambda: int("own"))
    with pytest.raises(RuntimeError, match="not JSON serializable"):
        limited(lambda: object())


@pytest.fixture
def standing() -> Iterator[Standing]:
    """Gives process id, count of its calls and what it was given; `spin` never ends."""
    seen: list[Any] = []

    def answer(given: Any) -> Any:
        seen.append(given)
        with Step(0.3, 1 << 30):
            while given == "spin":
                pass
        if given == "refuse":
            raise UsageError("no", "do so")
        return [os.getpid(), len(seen), given]

    made = Standing(answer, "Correct it.")
    yield made
    made.end()


def test_a_standing_copy_keeps_what_it_has_and_survives_a_refusal(standing: Standing) -> None:
    pid, count, given = standing({"a": [1]}, "the code", None)
    assert (pid != os.getpid(), count, given) == (True, 1, {"a": [1]})
    with pytest.raises(RunnerError, match="no"):
        standing("refuse", "the code", None)
    assert standing("x", "the code", None)[1:] in ([3, "x"], [1, "x"])


def test_a_standing_copy_that_takes_too_long_is_ended_and_the_next_call_has_another(standing: Standing) -> None:
    first = standing("a", "the code", None)[0]
    with pytest.raises(RunnerError, match=r"row 7 did not end within 0\.3 s"):
        standing("spin", "row 7", None)
    assert not psutil.pid_exists(first)
    second, count, _ = standing("b", "the code", None)
    assert (second != first, count) == (True, 1)


def test_a_standing_copy_that_has_died_or_was_not_used_for_long_is_made_again(
    standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = standing("a", "the code", None)[0]
    os.kill(first, signal.SIGKILL)
    time.sleep(0.1)
    second = standing("b", "the code", None)[0]
    monkeypatch.setattr(forked, "_IDLE_S", 0.0)
    third = standing("c", "the code", None)[0]
    assert len({first, second, third}) == 3
    standing.end()
    assert psutil.Process().children() == []


def test_a_standing_copy_that_nobody_calls_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forked, "_IDLE_S", 0.3)
    standing = Standing(lambda given: os.getpid(), "")
    copy = psutil.Process(standing(None, "the code", None))
    copy.wait(5)
    assert standing(None, "the code", None) != copy.pid
    standing.end()


PROGRAM = """
import sys, time
from runner.cluster.forked import call
print("once")
call(lambda: (print("copy", flush=True), time.sleep(600)), "it", "", None)
"""


def test_the_copy_ends_with_its_parent_and_writes_nothing_twice(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        parent = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=out)
    deadline = time.monotonic() + 20
    while "copy" not in (tmp_path / "out").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    (copy,) = psutil.Process(parent.pid).children()
    parent.kill()
    parent.wait()
    assert psutil.wait_procs([copy], timeout=10)[1] == []
    assert (tmp_path / "out").read_text().split() == ["once", "copy"]
