"""Limits on the time and memory of code that a model's maker wrote: chat templates and tokenizers."""

from __future__ import annotations

import ctypes
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from runner.errors import RunnerError

Result = TypeVar("Result")
SECONDS = 20.0
MORE_BYTES = 8 << 30  # of address space; a library that is imported meanwhile takes some, too


class _TimeIsUpError(BaseException):
    """Raised inside the thread that ran out of time. No template catches it."""


def within(seconds: float, what: str, function: Callable[[], Result]) -> Result:
    """The function's result. Raises RunnerError naming `what` when it takes longer; and whatever the function raises.

    The function runs in a thread, which is interrupted at its next line of Python; code in C is left to itself.
    """
    outcome: dict[str, Any] = {}

    def call() -> None:
        try:
            outcome["result"] = function()
        except _TimeIsUpError:
            return
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=call, name="time-limited", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive() and not outcome:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_TimeIsUpError))
        raise RunnerError(f"{what} did not end within {seconds:g} s", "Correct it, or use another model.")
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]  # type: ignore[no-any-return]


@contextmanager
def little_memory(more_bytes: int = MORE_BYTES) -> Iterator[None]:
    """Have this process get no more than so much address space on top of what it has: more is a MemoryError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + more_bytes
    if soft == resource.RLIM_INFINITY or most < soft:
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
