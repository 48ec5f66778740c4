"""A function in a copy of this process, for code of others: it is killed when its time is up, whatever it does.

A thread cannot be stopped while it is inside a call in C, and such a call holds Python's lock.
"""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import os
import resource
import signal
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from runner.errors import RunnerError

_POLL_S = 0.2
_IDLE_S = 60.0
_SET_PARENT_DEATH_SIGNAL = 1  # linux/prctl.h
_STEP = struct.Struct("dd")  # seconds that the present step may take, and when they are over; zeros outside of steps
_STEPS_A_LOOK = 64  # after which the copy looks again at how much memory it has
_PAGE_BYTES = resource.getpagesize()
_steps: _Steps | None = None  # of the copy


def call(function: Callable[[], Any], what: str, hint: str, seconds: float | None) -> Any:
    """The function's result, made in a copy of this process, as JSON has it; what it changes in memory is lost.

    seconds: for all of it; None limits each `Step` alone. Raises the function's RunnerError, one that names `what` when
    the time is up, memory runs out or the copy dies, and RuntimeError with the traceback of any other exception.
    """
    copy = _Copy(lambda pipe: pipe.send_bytes(_outcome(function, what, hint)))
    try:
        return copy.result(what, hint, seconds)
    finally:
        copy.end()


class Standing:
    """A function in a copy of this process that stays for the next call, with what the function keeps in memory.

    A copy that was not used for a while, or whose time was up, is ended, and made again for the next call.
    """

    def __init__(self, function: Callable[[Any], Any], hint: str) -> None:
        self._function, self._hint = function, hint
        self._copy: _Copy | None = None
        self._used = 0.0

    def __call__(self, given: Any, what: str, seconds: float | None) -> Any:
        """The function's result, as by `call`. given: its argument, which JSON has."""
        if self._copy is None or time.monotonic() - self._used > _IDLE_S / 2 or self._copy.has_ended():
            self.end()
            self._copy = _Copy(self._answer)
        try:
            self._copy.send([given, what])
            result = self._copy.result(what, self._hint, seconds)
        except BaseException:
            self.end()
            raise
        self._used = time.monotonic()
        return result

    def end(self) -> None:
        """End the copy, if there is one."""
        if self._copy is not None:
            self._copy.end()
        self._copy = None

    def _answer(self, pipe: Connection) -> None:
        while pipe.poll(_IDLE_S):
            given, what = json.loads(pipe.recv_bytes())
            pipe.send_bytes(_outcome(partial(self._function, given), what, self._hint))


class _Copy:
    """A copy of this process, which does the work with its end of a pipe and ends."""

    def __init__(self, work: Callable[[Connection], None]) -> None:
        self._clock, (self._ours, theirs), parent = mmap.mmap(-1, _STEP.size), Pipe(), os.getpid()
        _flush()  # what is buffered would be written by both
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: this process may have threads
            self._child = os.fork()
        if self._child == 0:
            _be_the_copy(parent, self._clock, partial(work, theirs))
        theirs.close()

    def send(self, value: Any) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # `result` tells of its end
            self._ours.send_bytes(json.dumps(value).encode())

    def result(self, what: str, hint: str, seconds: float | None) -> Any:
        """What the copy sends. Raises as `call`."""
        result, refusal, trace = _received(self._ours, self._child, self._clock, what, hint, seconds)
        if refusal:
            raise RunnerError(*refusal)
        if trace:
            raise RuntimeError(trace)
        return result

    def has_ended(self) -> bool:
        return os.waitid(os.P_PID, self._child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._child, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self._child, 0)
        self._ours.close()
        self._clock.close()


class Step:
    """What is done inside takes so long at most, or the copy is killed, and more memory is a MemoryError.

    In another process than the copy it does nothing. It is made once and used for each row.
    """

    def __init__(self, seconds: float, more_bytes: int) -> None:
        self.seconds, self.more_bytes = seconds, more_bytes

    def __enter__(self) -> None:
        if _steps is not None:
            _steps.begin(self.seconds, self.more_bytes)

    def __exit__(self, *_: object) -> None:
        if _steps is not None:
            _steps.end()


class _Steps:
    """Of the copy: the present step's end, which the parent reads, and its memory."""

    def __init__(self, clock: mmap.mmap) -> None:
        self._clock, self._count, self._size = clock, 0, 0
        self._statm = os.open("/proc/self/statm", os.O_RDONLY)
        self._own = self._soft, self._hard = resource.getrlimit(resource.RLIMIT_DATA)

    def begin(self, seconds: float, more_bytes: int) -> None:
        if self._count % _STEPS_A_LOOK == 0:
            self._size = int(os.pread(self._statm, 200, 0).split()[5]) * _PAGE_BYTES
        self._count += 1
        most = self._size + more_bytes
        if self._soft != resource.RLIM_INFINITY:
            most = min(self._soft, most)
        resource.setrlimit(resource.RLIMIT_DATA, (most, self._hard))
        _STEP.pack_into(self._clock, 0, seconds, time.monotonic() + seconds)

    def end(self) -> None:
        _STEP.pack_into(self._clock, 0, 0.0, 0.0)
        resource.setrlimit(resource.RLIMIT_DATA, self._own)


def _received(ours: Connection, child: int, clock: mmap.mmap, what: str, hint: str, seconds: float | None) -> Any:
    """[result, refusal, traceback] of the copy."""
    end = time.monotonic() + (seconds or 0.0)
    while not ours.poll(min(_POLL_S, seconds or _POLL_S)):
        allowed, until = (seconds, end) if seconds is not None else _STEP.unpack_from(clock)
        if until and time.monotonic() > until:
            return None, [f"{what} did not end within {allowed:g} s", hint], None
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None and not ours.poll(0):
            break  # a process that was forked meanwhile has the pipe, too
    with suppress(EOFError):
        if ours.poll(0):
            return json.loads(ours.recv_bytes())
    return None, [f"{what} needs too much memory, or makes its process fail", hint], None


def _be_the_copy(parent: int, clock: mmap.mmap, work: Callable[[], None]) -> NoReturn:
    """Do the work, and end without what this process would do at its end."""
    global _steps
    try:
        if not ends_with(parent, signal.SIGKILL):
            os._exit(1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent kills it
        gc.freeze()  # objects of the parent are not to be finalized here
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
        _steps = _Steps(clock)
        work()
        _flush()
    finally:
        os._exit(0)


def ends_with(parent: int, number: signal.Signals) -> bool:
    """Have this process get the signal when its parent ends, however that comes; False where it has ended already."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, number)
    return os.getppid() == parent


def _outcome(function: Callable[[], Any], what: str, hint: str) -> bytes:
    try:
        made = [function(), None, None]
        return json.dumps(made).encode()
    except RunnerError as error:
        made = [None, [error.message, error.hint], None]
    except MemoryError:
        made = [None, [f"{what} needs too much memory", hint], None]
    except BaseException:
        made = [None, None, traceback.format_exc()]
    return json.dumps(made).encode()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
