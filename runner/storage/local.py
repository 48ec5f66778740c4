"""Where a store's files are: the protocol that a `Store` builds on, and its form for a local folder."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from runner.errors import DamagedError, RunnerError
from runner.storage import atomic as durable

MOST_READ_BYTES = 64 << 20
"""Of a file that is read whole: a manifest, or a record."""
_TRIES = 10
_PIECE_BYTES = 8 << 20
_PARTIAL = ".partial"
_TEMPORARY = re.compile(r"[0-9a-f]{32}")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ENXIO)  # ENXIO: of a socket
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
    """Files below a local folder. Each appears whole: written to `.partial/`, then linked or renamed into place.

    Who may write to the folder may put links there, also while it is used. Folders are opened one below the other and
    never through a link, and what is read, written or removed is so in the folder that was opened. Links that stay in
    the store are followed as they were when the operation began; `.partial` is none.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def put_file(self, source: Path, key: str, on_bytes: Callable[[int], None]) -> None:
        with source.open("rb") as reader:
            self._write(key, iter(lambda: reader.read(_PIECE_BYTES), b""), _replace, on_bytes)

    def put_new(self, data: bytes, key: str) -> bool:
        try:
            self._write(key, [data], _link)
        except FileExistsError:
            return False
        return True

    def _write(
        self,
        key: str,
        pieces: Iterable[bytes],
        put: Callable[[str, int, str, int], None],
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> None:
        temporary = uuid.uuid4().hex
        with self._opened([_PARTIAL], make=True) as partial:
            try:
                handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=partial)
                with os.fdopen(handle, "wb") as file:
                    for piece in pieces:
                        file.write(piece)
                        on_bytes(len(piece))
                    file.flush()
                    os.fsync(file.fileno())
                self._into_folder(key, lambda name, folder: put(temporary, partial, name, folder))
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=partial)

    def _into_folder(self, key: str, put: Callable[[str, int], None]) -> None:
        """Make the key's folder and put the file there, again when the folder is deleted, as empty, in between."""
        for attempt in range(_TRIES):
            try:
                with self._folder_of(key, make=True) as (folder, name):
                    put(name, folder)
                    os.fsync(folder)
                    return
            except FileNotFoundError:
                if attempt == _TRIES - 1:
                    raise

    def get_file(self, key: str, target: Path, on_bytes: Callable[[int], None], verify: Callable[[], None]) -> None:
        file = self._open(key)
        if file is None:
            raise RunnerError(f"there is no {self._root}/{key}")
        with file, target.open("wb") as copy:
            shutil.copyfileobj(file, copy, 256 << 10)
        on_bytes(target.stat().st_size)
        verify()

    def check(self, key: str, source: Path, verify: Callable[[Path], None]) -> None:
        verify(self._root.joinpath(*self._real(key)))

    def read(self, key: str) -> bytes | None:
        if (file := self._open(key)) is None:
            return None
        with file:
            content = file.read(MOST_READ_BYTES + 1)
        if len(content) > MOST_READ_BYTES:
            raise DamagedError(f"{self._root}/{key} is larger than {MOST_READ_BYTES >> 20} MiB", "Remove it.")
        return content

    def _open(self, key: str) -> BinaryIO | None:
        """The stored file; None where there is no file of a disk."""
        *above, name = self._real(key) or (".",)
        try:
            with self._opened(above) as folder:
                handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        except OSError as error:
            if error.errno in _NO_FILE:
                return None
            if error.errno == errno.ELOOP:
                raise DamagedError(f"{self._root / key} became a link while it was looked for") from error
            raise
        if stat.S_ISREG(os.fstat(handle).st_mode):
            return os.fdopen(handle, "rb")
        os.close(handle)
        return None

    def walk(self, prefix: str) -> Iterator[ObjectInfo]:
        self._real(prefix)
        # os.walk passes over folders that are deleted meanwhile
        found = [Path(folder, name) for folder, _, names in os.walk(self._root / prefix) for name in names]
        for path in sorted(found):
            key = path.relative_to(self._root)
            if path.is_file() and key.parts[0] != _PARTIAL:
                with suppress(FileNotFoundError):  # it was deleted just now
                    found_now = path.stat()
                    yield ObjectInfo(key.as_posix(), found_now.st_size, found_now.st_mtime)

    def abandon(self, prefix: str) -> None:
        """What writers below any prefix that were killed left lies together; after a day it is nobody's."""
        mark = uuid.uuid4().hex
        with self._opened([_PARTIAL], make=True) as partial:
            os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=partial))
            now = os.stat(mark, dir_fd=partial).st_mtime  # by the file system's clock, as others'
            for name in os.listdir(partial):  # noqa: PTH208 (a handle)
                with suppress(FileNotFoundError):
                    age_s = now - os.stat(name, dir_fd=partial, follow_symlinks=False).st_mtime
                    if name == mark or (_TEMPORARY.fullmatch(name) and age_s > _ABANDONED_AFTER_S):
                        os.unlink(name, dir_fd=partial)

    def delete(self, keys: list[str]) -> None:
        for key in keys:
            with suppress(FileNotFoundError), self._folder_of(key) as (folder, name):
                os.unlink(name, dir_fd=folder)
            with suppress(OSError):  # up to the first folder that holds something
                for above in (self._root / key).parents:  # folders that are empty now go too, as in an object store
                    if above == self._root:
                        break
                    above.rmdir()

    def _real(self, key: str) -> tuple[str, ...]:
        """Where the key is in the store, links resolved. Raises DamagedError where they lead out of it."""
        root = self._root.resolve()
        with suppress(RuntimeError):  # links that lead to each other
            if (real := (self._root / key).resolve()).is_relative_to(root):
                return real.relative_to(root).parts
        raise DamagedError(f"{self._root / key} leads out of the store {self._root} through a link")

    @contextmanager
    def _folder_of(self, key: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """A handle of the folder that the key's file is in, and the file's name there."""
        above, _, name = key.rpartition("/")
        with self._opened(self._real(above), make=make) as folder:
            yield folder, name

    @contextmanager
    def _opened(self, parts: Iterable[str], *, make: bool = False) -> Iterator[int]:
        """A handle of the folder, which stays that one whatever gets its name. parts: its path in the store, no links.

        Raises DamagedError where one of them is a link, and OSError where one is missing or a file.
        """
        if make:
            durable.make_folder(self._root)
        at, handle = self._root, os.open(self._root, _FOLDER)
        try:
            for part in parts:
                at, above = at / part, handle
                handle = _below(above, part, at, make=make)
                os.close(above)
            yield handle
        finally:
            os.close(handle)


def _below(folder: int, name: str, shown: Path, *, make: bool) -> int:
    """A handle of the folder in another one."""
    if make:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=folder)
            os.fsync(folder)
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except NotADirectoryError:
        if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise DamagedError(f"{shown} is a link, and no folder of the store", "Remove the link.") from None
        raise


def _replace(name: str, folder: int, target: str, in_folder: int) -> None:
    os.replace(name, target, src_dir_fd=folder, dst_dir_fd=in_folder)


def _link(name: str, folder: int, target: str, in_folder: int) -> None:
    """Give the file the name `target` too. Raises FileExistsError when something has it already."""
    try:
        os.link(name, target, src_dir_fd=folder, dst_dir_fd=in_folder, follow_symlinks=False)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:  # a file system without hard links
        with suppress(FileNotFoundError):
            os.stat(target, dir_fd=in_folder, follow_symlinks=False)
            raise FileExistsError(target) from None
        _replace(name, folder, target, in_folder)
