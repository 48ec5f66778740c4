"""Ctrl-C at a command: one line, and how to continue."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from runner.errors import EXIT_INTERRUPTED, printable


@contextmanager
def noted_ctrl_c() -> Iterator[list[int]]:
    """Ctrl-C raises KeyboardInterrupt in the block, as ever. Gives the signals that came."""
    seen: list[int] = []

    def interrupt(signum: int, frame: FrameType | None) -> None:
        seen.append(signum)
        raise KeyboardInterrupt

    saved = signal.getsignal(signal.SIGINT)
    if saved is signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield seen
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, saved)


def say_interrupted(command: str) -> int:
    """Say so, with the command that continues where it is known. Returns the exit code."""
    with suppress(OSError, KeyboardInterrupt):
        how = f"; continue with: {command}" if command else ""
        print(printable(f"interrupted{how}"), file=sys.stderr)
    return EXIT_INTERRUPTED
