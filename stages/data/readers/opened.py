"""Files as streams of bytes or text, unpacked on the way, with limits against files that unpack to too much."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, cast

from runner.errors import RunnerError
from stages.data.readers.sniff import Form

MOST_ROW_CHARS = 64 << 20
"""Longest row, so that a file without a line's end does not fill the memory."""
FREE_BYTES = 256 << 20
MOST_EXPANSION = 200
"""A packed file may hold FREE_BYTES, or this many times its own size if that is more."""
_BUFFER_BYTES = 1 << 20

OnBytes = Callable[[int], None]


@contextmanager
def open_bytes(path: Path, name: str, form: Form, on_bytes: OnBytes = lambda done: None) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked. on_bytes: called with the packed bytes read so far.

    Raises RunnerError when it is cut off, or unpacks to more than the limits.
    """
    with ExitStack() as stack:
        raw: Any = stack.enter_context(path.open("rb"))
        if form.compression == "zip":
            raw = stack.enter_context(stack.enter_context(zipfile.ZipFile(raw)).open(form.member))
        else:
            raw = io.BufferedReader(_Watched(raw, on_bytes), _BUFFER_BYTES)
            raw = _unpacked(raw, form.compression)
        if form.compression:
            most = max(FREE_BYTES, MOST_EXPANSION * path.stat().st_size)
            raw = io.BufferedReader(_Limited(raw, most, name), _BUFFER_BYTES)
        try:
            yield raw
        except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile) as error:
            raise RunnerError(f"{name} is cut off or corrupt: {error}", "Get the file again.") from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise RunnerError(f"{name} is cut off or corrupt: {error}", "Get the file again.") from error


@contextmanager
def open_text(path: Path, name: str, form: Form, on_bytes: OnBytes, newline: str | None = None) -> Iterator[IO[str]]:
    """The file's text. Bytes that are not UTF-8 are kept as surrogates, for the reader to report (`text_flaw`)."""
    with open_bytes(path, name, form, on_bytes) as file:
        yield io.TextIOWrapper(cast(Any, file), "utf-8-sig", "surrogateescape", newline)


@contextmanager
def unpacked_file(path: Path, name: str, form: Form) -> Iterator[Path]:
    """A path of the unpacked file, for readers that move about in it."""
    if not form.compression:
        yield path
        return
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".unpacked-") as target:
        with open_bytes(path, name, form) as file:
            shutil.copyfileobj(file, target)
        target.flush()
        yield Path(target.name)


def check_length(line: str, name: str) -> str:
    """The line. Raises RunnerError when it is cut off at the limit."""
    if len(line) >= MOST_ROW_CHARS:
        raise RunnerError(
            f"{name} has a line longer than {MOST_ROW_CHARS >> 20} million characters", "Write one row a line."
        )
    return line


def text_flaw(text: str) -> str:
    """Why the bytes are not text: not UTF-8, or a NUL among them; "" where they are."""
    if "\0" in text:
        return "holds a NUL byte"
    if text.isascii():
        return ""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "not UTF-8"
    return ""


def _unpacked(raw: Any, compression: str) -> Any:
    if compression == "gzip":
        return gzip.GzipFile(fileobj=raw)
    if compression == "bz2":
        return bz2.BZ2File(raw)
    if compression == "xz":
        return lzma.LZMAFile(raw)
    if compression == "zstd":
        import pyarrow as pa

        return pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")
    return raw


class _Watched(io.RawIOBase):
    """A file that tells how far it has been read."""

    def __init__(self, file: IO[bytes], on_bytes: OnBytes) -> None:
        self._file, self._on_bytes, self._done = file, on_bytes, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self._file.readinto(buffer)  # type: ignore[attr-defined]
        self._done += count
        self._on_bytes(self._done)
        return count


class _Limited(io.RawIOBase):
    """A stream that refuses to give more than so many bytes."""

    def __init__(self, file: Any, most: int, name: str) -> None:
        self._file, self._left, self._most, self._name = file, most, most, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise RunnerError(
                f"{self._name} unpacks to more than {self._most >> 20:,} MiB, {MOST_EXPANSION} times its size",
                "Unpack it yourself if it is what you expect.",
            )
        buffer[: len(data)] = data
        return len(data)
