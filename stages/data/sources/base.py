"""What a source of files does."""

from __future__ import annotations

import fnmatch
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from math import inf
from pathlib import Path
from typing import Protocol

from runner.errors import RunnerError
from runner.text import count_text

NAME_HINT = "Name the split's files in dataset.files.{train,val,test}, or null where the dataset has none."

_SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)(\D.*|)")
_NOT_DATA = re.compile(
    r"(readme|license|licence|changelog|notice)(\.\w+)?|(dataset_infos?|dataset_dict|state|croissant)\.json"
    r"|.*(~|\.bak|\.tmp|\.part|\.swp|\.crc|\.lock)",
    re.IGNORECASE,
)

MOST_SEEN = 100_000
"""Names that a pattern is compared with: more are below no folder of rows, but below a disk or a whole bucket."""
MOST_FILES = 10_000
"""Files that one pattern means."""
NARROWER = "Name the folder of the rows, or list the files in dataset.files."

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
    """Sums up the bytes of several files; the total is known once each file's size is.

    most: bytes that all of them may have. limit: the key or constant that says so.
    """

    def __init__(self, on_bytes: OnBytes, most: float = inf, limit: str = "") -> None:
        self._on_bytes, self._most, self._limit = on_bytes, most, limit
        self._done = 0
        self._total: int | None = 0
        self._lock = threading.Lock()

    def expect(self, num_bytes: int | None) -> None:
        """Add the size of a file; None when it is not known. Raises RunnerError when they have more than they may."""
        with self._lock:
            self._total = None if num_bytes is None or self._total is None else self._total + num_bytes
            self._check(self._total or 0)

    def add(self, num_bytes: int) -> None:
        """Count bytes that arrived. Raises RunnerError when they are more than they may be."""
        with self._lock:
            self._done += num_bytes
            self._check(self._done)
            self._on_bytes(self._done, self._total)

    def _check(self, num_bytes: int) -> None:
        if num_bytes > self._most:
            hint = "Name fewer files, or set a larger limit if you expect so much."
            raise RunnerError(f"the files of dataset.source have more than {self._limit}", hint)


def is_pattern(name: str) -> bool:
    """Whether the name stands for several files."""
    return any(char in name for char in "*?[")


def bounded(source: str, names: Iterable[str]) -> Iterator[str]:
    """The names, as they come. Raises RunnerError when there are more than MOST_SEEN."""
    for number, name in enumerate(names):
        if number == MOST_SEEN:
            raise RunnerError(f"dataset.source={source} has more than {MOST_SEEN:,} files below it", NARROWER)
        yield name


def matching(source: str, pattern: str, there: Iterable[str]) -> list[str]:
    """The names that the pattern means, in the order of their numbers. Hidden files and those that describe a dataset
    (README.md, dataset_info.json) are not among them.

    Raises RunnerError when there are none, when there are too many, or when one of a numbered set is missing.
    """
    there = sorted(bounded(source, there), key=_in_order)
    asks_hidden = any(part[:1] in (".", "_") for part in pattern.split("/"))
    found = [name for name in there if _matches(name, pattern) and (asks_hidden or not _describes(name))]
    if not found:
        shown = ", ".join(there[:10]) or "nothing"
        raise RunnerError(f"dataset.source={source} has no file like {pattern}; it holds: {shown}", NAME_HINT)
    if len(found) > MOST_FILES:
        text = f"{pattern} means {count_text(len(found), 'file')}, and a split has {MOST_FILES:,} at most"
        raise RunnerError(f"dataset.source={source}: {text}", NARROWER)
    if missing := _missing_shard(found, pattern):
        hint = "Get the file, or list the files' names in dataset.files."
        raise RunnerError(f"dataset.source={source} lacks {missing}, one of those that {pattern} means", hint)
    return found


def _matches(name: str, pattern: str) -> bool:
    """Whether the pattern means the name; `**/` stands for any folders, or none."""
    return any(fnmatch.fnmatchcase(name, each) for each in {pattern, pattern.replace("**/", "")})


def _in_order(name: str) -> list[str | int]:
    """Numbers as numbers: part-2 before part-10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _describes(name: str) -> bool:
    *folders, base = name.split("/")
    return any(part[:1] in (".", "_") for part in (*folders, base)) or bool(_NOT_DATA.fullmatch(base))


def _missing_shard(names: Iterable[str], pattern: str) -> str:
    """A file that the numbers of the others tell of, such as 00001-of-00003; "" where all are there."""
    sets: dict[tuple[str, str, str], set[int]] = {}
    for name in names:
        if match := _SHARD.fullmatch(name):
            sets.setdefault((match[1], match[3], match[4]), set()).add(int(match[2]))
    for (before, total, after), numbers in sets.items():
        start = 0 if 0 in numbers else 1
        for number in range(start, start + int(total)):
            name = f"{before}-{number:0{len(total)}d}-of-{total}{after}"
            if number not in numbers and _matches(name, pattern):
                return name
    return ""
