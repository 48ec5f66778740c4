"""Where a store's files are: the protocol that a `Store` builds on, and its form for a local folder."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runner.errors import DamagedError, RunnerError
from runner.storage import atomic as durable

_TRIES = 10
_PIECE_BYTES = 8 << 20
_PARTIAL = ".partial"
_ABANDONED_AFTER_S = 86_400.0


@dataclass(frozen=True)
class ObjectInfo:
    """A stored file; `key` is relative to the store's URI. `modified_at`: Unix time (s) by the store's own clock.

    `etag`: S3's tag of its content, where there is one.
    """

    key: str
    size_bytes: int
    modified_at: float
    etag: str = ""


class Blobs(Protocol):
    """What a store needs of the place it keeps files in. Keys are checked before they get here."""

    def put_file(self, source: Path, key: str, on_bytes: Callable[[int], None]) -> None: ...

    def put_new(self, data: bytes, key: str) -> bool:
        """Write the data unless the key exists; False if it does."""

    def get_file(self, key: str, target: Path, on_bytes: Callable[[int], None], verify: Callable[[], None]) -> None:
        """Copy the file to the target. verify: raises DamagedError when what arrived there is wrong."""

    def read(self, key: str) -> bytes | None: ...

    def check(self, key: str, source: Path, verify: Callable[[Path], None]) -> None:
        """Raise DamagedError unless what is stored under the key is what the local file `source` holds.

        verify: raises DamagedError when a file at a path is not that; for a store whose files can be read in place.
        """

    def walk(self, prefix: str) -> Iterator[ObjectInfo]: ...

    def delete(self, keys: list[str]) -> None: ...

    def abandon(self, prefix: str) -> None:
        """Remove what uploads below the prefix left that did not end. One that is under way fails."""


class FolderBlobs:
    """Files below a local folder. Each appears whole: written to `.partial/`, then linked or renamed into place."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _path(self, key: str) -> Path:
        path = self._root / key
        if not path.resolve().is_relative_to(self._root.resolve()):
            raise DamagedError(f"{path} leads out of the store {self._root} through a link")
        return path

    def put_file(self, source: Path, key: str, on_bytes: Callable[[int], None]) -> None:
        with source.open("rb") as reader:
            self._write(self._path(key), iter(lambda: reader.read(_PIECE_BYTES), b""), os.replace, on_bytes)

    def put_new(self, data: bytes, key: str) -> bool:
        try:
            self._write(self._path(key), [data], _link)
        except FileExistsError:
            return False
        return True

    def _write(
        self,
        target: Path,
        pieces: Iterable[bytes],
        put: Callable[[Path, Path], None],
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> None:
        temporary = self._root / _PARTIAL / uuid.uuid4().hex
        durable.make_folder(temporary.parent)
        try:
            with temporary.open("wb") as file:
                for piece in pieces:
                    file.write(piece)
                    on_bytes(len(piece))
                file.flush()
                os.fsync(file.fileno())
            _into_folder(target, lambda: put(temporary, target))
            durable.sync_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def get_file(self, key: str, target: Path, on_bytes: Callable[[int], None], verify: Callable[[], None]) -> None:
        try:
            shutil.copyfile(self._path(key), target)
        except FileNotFoundError as error:
            raise RunnerError(f"there is no {self._root}/{key}") from error
        on_bytes(target.stat().st_size)
        verify()

    def check(self, key: str, source: Path, verify: Callable[[Path], None]) -> None:
        verify(self._path(key))

    def read(self, key: str) -> bytes | None:
        path = self._path(key)
        return path.read_bytes() if path.is_file() else None

    def walk(self, prefix: str) -> Iterator[ObjectInfo]:
        # os.walk passes over folders that are deleted meanwhile
        found = [Path(folder, name) for folder, _, names in os.walk(self._path(prefix)) for name in names]
        for path in sorted(found):
            key = path.relative_to(self._root)
            if path.is_file() and key.parts[0] != _PARTIAL:
                with suppress(FileNotFoundError):  # it was deleted just now
                    stat = path.stat()
                    yield ObjectInfo(key.as_posix(), stat.st_size, stat.st_mtime)

    def abandon(self, prefix: str) -> None:
        """What writers below any prefix that were killed left lies together; after a day it is nobody's."""
        folder = self._root / _PARTIAL
        mark = folder / uuid.uuid4().hex
        mark.touch()
        now = mark.stat().st_mtime  # by the clock of the file system, which other hosts' files have too
        for path in folder.iterdir():
            with suppress(FileNotFoundError):
                if path == mark or now - path.stat().st_mtime > _ABANDONED_AFTER_S:
                    path.unlink()

    def delete(self, keys: list[str]) -> None:
        for key in keys:
            path = self._path(key)
            path.unlink(missing_ok=True)
            with suppress(OSError):  # up to the first folder that holds something
                for folder in path.parents:  # folders that are empty now go too, as they would in an object store
                    if folder == self._root:
                        break
                    folder.rmdir()


def _into_folder(target: Path, put: Callable[[], None]) -> None:
    """Make the target's folder and put the target there, again when the folder is deleted, as empty, in between."""
    for _ in range(_TRIES - 1):
        with suppress(FileNotFoundError):
            durable.make_folder(target.parent)
            put()
            return
    durable.make_folder(target.parent)
    put()


def _link(source: Path, target: Path) -> None:
    """Give the file the name `target` too. Raises FileExistsError when something has it already."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if target.exists():
            raise FileExistsError(str(target)) from None
        source.replace(target)
