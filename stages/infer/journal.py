"""Finished predictions of a batch job, kept on disk as they come, so that a killed job resumes where it was.

The journal is one file that only grows. A record is a line: the digest of what follows and of what the predictions
depend on, the test row's index, the variant, and the prediction's line. A record that is incomplete, damaged or of
another job does not count, and its row is predicted again.
"""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from runner.errors import RunnerError
from runner.storage.digest import digest_bytes
from runner.text import count_text
from stages.data.prediction import Prediction

JOURNAL = "journal.jsonl"

# What is written survives the death of the process at once, and that of the machine after this time.
_SYNC_EVERY_S = 2.0
_DIGEST_CHARS = 16


class Journal:
    """The predictions that are done, and which are still to come. It takes 8 bytes of memory for each.

    count: predictions that are done. num_errors, num_tokens: of those. refusal: why the engine refused the first of
    those that it refused. num_damaged: records of an earlier attempt that did not count.
    """

    def __init__(
        self,
        path: Path,
        num_rows: int,
        variants: Sequence[str],
        now: Callable[[], float] = time.monotonic,
        identity: str = "",
    ) -> None:
        """identity: digest of all that the predictions depend on."""
        self._path, self._now, self._identity = path, now, identity.encode()
        self._offsets = {variant: array("q", [-1]) * num_rows for variant in variants}
        self._end = 0
        self._file: IO[bytes] | None = None
        self._synced_at = float("-inf")
        self.count = self.num_errors = self.num_tokens = self.num_damaged = 0
        self.refusal = ""

    def __enter__(self) -> Journal:
        if self._path.is_file():
            self._read()
        self._file = self._path.open("ab")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._sync()
        self._file.close()

    def _read(self) -> None:
        """Count what an earlier attempt left. An incomplete end is cut off, so that the next record begins a line."""
        whole = 0
        with self._path.open("rb") as file:
            for record in file:
                found = self._parsed(record)
                if found:
                    self._count(self._end, *found)
                else:
                    self.num_damaged += 1
                self._end += len(record)
                if record.endswith(b"\n"):
                    whole = self._end
        if whole != self._end:
            os.truncate(self._path, whole)
            self._end = whole

    def _count(self, offset: int, index: int, variant: str, line: str) -> None:
        if self.is_done(index, variant):
            return
        self._offsets[variant][index] = offset
        made = Prediction.parse(line)
        self.count += 1
        self.num_tokens += made.num_generated_tokens
        if made.error:
            self.num_errors += 1
            self.refusal = self.refusal or made.error

    @property
    def num_expected(self) -> int:
        return sum(map(len, self._offsets.values()))

    def is_done(self, index: int, variant: str) -> bool:
        return self._offsets[variant][index] >= 0

    def add(self, index: int, variant: str, line: str) -> None:
        """Append a prediction. One that is there already stays: a restarted engine may answer a second time."""
        assert self._file is not None
        if self.is_done(index, variant):
            return
        record = _record(index, variant, line, self._identity)
        self._file.write(record)
        self._count(self._end, index, variant, line)
        self._end += len(record)

    def flush(self) -> None:
        """Hand over to the system what was added, and to the disk now and then."""
        assert self._file is not None
        self._file.flush()
        if self._now() - self._synced_at >= _SYNC_EVERY_S:
            self._sync()

    def _sync(self) -> None:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced_at = self._now()

    def discard(self) -> None:
        """Remove the file; there is nothing more to add."""
        self._path.unlink()

    def check_complete(self) -> None:
        """Raise RunnerError naming the first row that has no prediction."""
        for variant, offsets in self._offsets.items():
            missing = offsets.count(-1)
            if missing:
                raise RunnerError(
                    f"{missing} of {count_text(len(offsets), 'test row')} without a prediction ({variant}), "
                    f"row {offsets.index(-1)} for one",
                    "Give the same command again: it predicts just these. A lost row is a fault of the engine or of "
                    "the cluster.",
                )

    def lines(self) -> Iterator[str]:
        """Every prediction's line once: row by row, the variants of a row side by side."""
        self._sync()
        with self._path.open("rb") as file:
            for offsets in zip(*self._offsets.values(), strict=True):
                for offset in offsets:
                    file.seek(offset)
                    found = self._parsed(file.readline())
                    if found is None:
                        raise RunnerError(f"{self._path} was damaged while it was read", "Give the same command again.")
                    yield found[2]

    def _parsed(self, record: bytes) -> tuple[int, str, str] | None:
        return _parse(record, self._offsets, self._identity)


def _record(index: int, variant: str, line: str, identity: bytes) -> bytes:
    text = f"{index} {variant} {line}".encode()
    return f"{digest_bytes(identity + text)[:_DIGEST_CHARS]} ".encode() + text + b"\n"


def _parse(record: bytes, known: dict[str, array[int]], identity: bytes) -> tuple[int, str, str] | None:
    """(index, variant, line) of a record, or None when it is not whole or not of this job."""
    digest, _, text = record.removesuffix(b"\n").partition(b" ")
    if not record.endswith(b"\n") or digest.decode(errors="replace") != digest_bytes(identity + text)[:_DIGEST_CHARS]:
        return None
    index, variant, line = text.decode().split(" ", 2)
    if variant not in known or int(index) >= len(known[variant]):
        return None
    return int(index), variant, line
