"""Folders that are made once and kept, and digests of large files that are computed once. Both notice damage."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from runner.errors import LockedError, RunnerError
from runner.storage import atomic as durable
from runner.storage.artifact import FileEntry
from runner.storage.atomic import read_state, write_state
from runner.storage.digest import digest_file
from runner.storage.lock import hold
from runner.storage.verify import Digests

_NUM_PARALLEL_FILES = 4
_POLL_S = 0.2


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder, which `make` fills (under another name, renamed when it is done) unless that has been done.

    A list of its files with sizes and digests lies beside it. When a file is not as listed, the folder is made anew.
    Files whose size and time of change are as listed are not read. A process waits for another that does the same.
    """
    listed = folder.with_name(f".{folder.name}.files.json")
    if folder.is_dir() and not _damage(folder, listed):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder.with_name(f".{folder.name}.lock")):
        if folder.is_dir():
            damage = _damage(folder, listed)
            if not damage:
                return folder
            print(f"{damage}; {folder} is made again", file=sys.stderr)
            _put_aside(folder)
        part = folder.with_name(f".{folder.name}.part")
        make(part)
        durable.sync_tree(part)
        write_state(listed, _listing(part))
        durable.move(part, folder)
    return folder


def digests_of(folder: Path, names: list[str], memory_folder: Path) -> list[FileEntry]:
    """Size and digest of the named files; large ones are read once on each machine (see `Digests`)."""
    digests = Digests(memory_folder)
    with ThreadPoolExecutor(_NUM_PARALLEL_FILES) as pool:
        found = list(pool.map(lambda name: digests.of(folder / name), names))
    digests.save()
    return [
        FileEntry(path=name, size_bytes=(folder / name).stat().st_size, sha256=sha256)
        for name, sha256 in zip(names, found, strict=True)
    ]


def _listing(folder: Path) -> dict[str, list[Any]]:
    """Size, time of change (ns) and SHA-256 of every file below the folder, by relative path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor(_NUM_PARALLEL_FILES) as pool:
        digests = list(pool.map(digest_file, paths))
    return {
        path.relative_to(folder).as_posix(): [path.stat().st_size, path.stat().st_mtime_ns, digest]
        for path, digest in zip(paths, digests, strict=True)
    }


def _damage(folder: Path, listed: Path) -> str:
    """Which file of the folder is not as listed, or ""."""
    try:
        listing = read_state(listed)
    except FileNotFoundError:  # the folder is older than such lists
        with suppress(OSError):  # a cache that is only read from
            write_state(listed, _listing(folder))
        return ""
    except RunnerError as error:
        return error.message
    for name, (size_bytes, mtime_ns, sha256) in listing.items():
        path = folder / name
        if not path.is_file():
            return f"{path} is gone"
        stat = path.stat()
        same_time = stat.st_mtime_ns == mtime_ns
        if stat.st_size != size_bytes or not (same_time or digest_file(path) == sha256):
            return f"{path} is damaged"
    return ""


def _put_aside(folder: Path) -> None:
    """Remove the folder; a process that has its files open keeps them."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    folder.replace(old)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock; wait while another process does, here or on another machine that shares the cache."""
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(hold(path))
                break
            except LockedError:
                time.sleep(_POLL_S)
        yield
