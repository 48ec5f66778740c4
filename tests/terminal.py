"""A pseudo-terminal for tests: run a command as a person would see it, and read what was left on the screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from tests.paths import ROOT

_CONTROL = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b.|[\r\n\b]|[^\x1b\r\n\b]+")
_ROWS = 50


class Screen:
    """The lines that a terminal of this width shows, those scrolled away included; styles are left out."""

    def __init__(self, columns: int) -> None:
        self.columns, self.lines, self._row, self._column = columns, [""], 0, 0

    def feed(self, text: str) -> None:
        for match in _CONTROL.finditer(text):
            token = match.group()
            if token == "\n":
                self._down()
            elif token == "\r":
                self._column = 0
            elif token == "\b":
                self._column = max(0, self._column - 1)
            elif match.group(2):
                self._control(match.group(1), match.group(2))
            elif token[0] != "\x1b":
                self._write(token)

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self.lines):
            self.lines.append("")

    def _control(self, argument: str, command: str) -> None:
        if command == "A":
            self._row = max(0, self._row - int(argument or 1))
        elif command == "K":
            line = self.lines[self._row]
            self.lines[self._row] = "" if argument == "2" else line[: self._column]

    def _write(self, text: str) -> None:
        for char in text:
            if self._column == self.columns:
                self._down()
                self._column = 0
            line = self.lines[self._row].ljust(self._column)
            self.lines[self._row] = line[: self._column] + char + line[self._column + 1 :]
            self._column += 1

    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines).rstrip("\n")


class Session:
    """A command with a terminal of its own."""

    def __init__(
        self, command: Sequence[str], columns: int, environment: Mapping[str, str], timeout_s: float = 60
    ) -> None:
        self.raw = ""
        self._deadline = time.monotonic() + timeout_s
        self._master, slave = pty.openpty()
        self._fit(columns)
        variables = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
        self._process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**variables, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **environment},
        )  # fmt: skip
        os.close(slave)

    def resize(self, columns: int) -> None:
        """Make the terminal that wide; the command gets SIGWINCH."""
        self._fit(columns)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def read_until(self, done: Callable[[str], bool]) -> str:
        """Read until `done(everything so far)`. Raises AssertionError with the text when the time is over."""
        while not done(self.raw):
            if not self._read():
                self.close()
                raise AssertionError(f"the command ended too early:\n{self.raw}")
        return self.raw

    def wait(self) -> int:
        """Read to the end. Returns the exit code."""
        try:
            while self._read():
                pass
            return self._process.wait(10)
        finally:
            self.close()

    def close(self) -> None:
        """End the command if it still works."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
        with suppress(OSError):
            os.close(self._master)

    def _fit(self, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, columns, 0, 0))

    def _read(self) -> bool:
        """Read once; False at the end."""
        while True:
            ready, _, _ = select.select([self._master], [], [], 0.2)
            if ready:
                break
            if time.monotonic() > self._deadline:
                self.close()
                raise AssertionError(f"the command took too long:\n{self.raw}")
        data = b""
        with suppress(OSError):  # EIO: nobody has the other end open any more
            data = os.read(self._master, 65536)
        self.raw += data.decode(errors="replace")
        return bool(data)


def plain(raw: str) -> str:
    """The text without any control sequence, every state of the live line included."""
    return re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", raw)
