"""What a source of files does."""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from runner.errors import RunnerError

NAME_HINT = "Name the split's files in dataset.files.{train,val,test}, or null where the dataset has none."

OnBytes = Callable[[int, int | None], None]


class FileSource(Protocol):
    """Files below one address."""

    def find(self, pattern: str) -> list[str]:
        """Names that the pattern means, in order. Raises RunnerError when there are none."""

    def local(self, name: str) -> Path | None:
        """The file where it is, if it is on this machine."""

    def tag(self, name: str) -> str | None:
        """What changes when the file's content does, seen without its content; None where there is no such thing.

        Raises RunnerError when there is no answer, soon rather than after many tries."""

    def fetch(self, name: str, target: Path, count: Count) -> None:
        """Download the file. Raises RunnerError naming it when it is missing or cannot be read."""


class Count:
    """Sums up the bytes of several files; the total is known once each file's size is."""

    def __init__(self, on_bytes: OnBytes) -> None:
        self._on_bytes = on_bytes
        self._done = 0
        self._total: int | None = 0
        self._lock = threading.Lock()

    def expect(self, num_bytes: int | None) -> None:
        """Add the size of a file; None when it is not known."""
        with self._lock:
            self._total = None if num_bytes is None or self._total is None else self._total + num_bytes

    def add(self, num_bytes: int) -> None:
        """Count bytes that arrived."""
        with self._lock:
            self._done += num_bytes
            self._on_bytes(self._done, self._total)


def is_pattern(name: str) -> bool:
    """Whether the name stands for several files."""
    return any(char in name for char in "*?[")


def matching(source: str, pattern: str, there: Iterable[str]) -> list[str]:
    """The names that the pattern means, sorted. Raises RunnerError when there are none."""
    there = sorted(there)
    found = [name for name in there if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        shown = ", ".join(there[:10]) or "nothing"
        raise RunnerError(f"dataset.source={source} has no file like {pattern}; it holds: {shown}", NAME_HINT)
    return found
