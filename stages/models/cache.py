"""Folders that are made once and kept, and digests of large files that are computed once. Both notice damage."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
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

    A list of its files with sizes and digests lies next to it. When a file is not as listed, or the list is gone or
    damaged, the folder is made again. Large files are read once on each machine, and again when they change (see
    `Digests`; what was read is remembered in `digests` two folders above). A process waits for another that does the
    same.
    """
    listed = folder.with_name(f".{folder.name}.files.json")
    digests = Digests(folder.parent.parent / "digests")
    if folder.is_dir() and not _damage(folder, listed, digests):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder.with_name(f".{folder.name}.lock")):
        if folder.is_dir():
            damage = _damage(folder, listed, digests)
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
    """Size and SHA-256 of every file below the folder, by relative path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor(_NUM_PARALLEL_FILES) as pool:
        digests = list(pool.map(digest_file, paths))
    return {
        path.relative_to(folder).as_posix(): [path.stat().st_size, digest]
        for path, digest in zip(paths, digests, strict=True)
    }


def _damage(folder: Path, listed: Path, digests: Digests) -> str:
    """Which file of the folder is not as listed, or ""."""
    try:
        listing = read_state(listed)
    except FileNotFoundError:
        return f"{listed} is gone, without which nobody knows whether the files are whole"
    except RunnerError as error:
        return error.message
    with ThreadPoolExecutor(_NUM_PARALLEL_FILES) as pool:
        found = list(pool.map(lambda name: _file_damage(folder / name, listing[name], digests), listing))
    digests.save()
    return next(filter(None, found), "")


def _file_damage(path: Path, listed: list[Any], digests: Digests) -> str:
    size_bytes, sha256 = listed[0], listed[-1]  # older lists have a time of change between them
    if not path.is_file():
        return f"{path} is gone"
    same = path.stat().st_size == size_bytes and digests.of(path) == sha256
    return "" if same else f"{path} is damaged"


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
