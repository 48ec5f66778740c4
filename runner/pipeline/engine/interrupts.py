"""Signals that end a run in order."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(BaseException):
    """SIGTERM or Ctrl-C arrived."""


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """SIGTERM and Ctrl-C end the run in order, as `Interrupted` in the main thread. Gives the signals that came."""
    seen: list[int] = []

    def interrupt(signum: int, frame: FrameType | None) -> None:
        seen.append(signum)
        raise Interrupted(signum)

    saved = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield seen
    finally:
        for number, handler in saved.items():
            signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A second Ctrl-C must not leave half of the cleaning up undone."""
    saved = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in saved.items():
            signal.signal(number, handler)


def wait_for_interrupt() -> None:
    """Return when a signal of `interruptible` has arrived."""
    with suppress(Interrupted):
        while True:
            signal.pause()
