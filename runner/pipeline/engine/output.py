"""Keeps the terminal readable: what a stage and its libraries print goes to the stage's log file."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO


class Output:
    """Splits the process's output: `terminal` stays where stdout was; file descriptors 1 and 2 go to a log."""

    def __init__(self) -> None:
        self._saved: tuple[int, int] | None = None
        self.terminal: TextIO = sys.stdout
        self.log: Path | None = None

    def capture(self, log: Path) -> None:
        """Send everything printed from now on, by this process and its children, to the end of that file."""
        _flush()
        if self._saved is None:
            self._saved = (os.dup(1), os.dup(2))
            self.terminal = os.fdopen(os.dup(self._saved[0]), "w", encoding="utf-8", buffering=1)
        log.parent.mkdir(parents=True, exist_ok=True)
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(target, 1)
        os.dup2(target, 2)
        os.close(target)
        self.log = log

    def release(self) -> None:
        """Give stdout and stderr back."""
        if self._saved is None:
            return
        _flush()
        for number, saved in zip((1, 2), self._saved, strict=True):
            os.dup2(saved, number)
            os.close(saved)
        self._saved = None
        self.terminal.close()
        self.terminal = sys.stdout


def _flush() -> None:
    """Have what was printed in the log. One on a full disk must not keep the terminal from the words that say so."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
