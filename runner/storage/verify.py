"""Whether local files still have the content that a record says, without reading a large file twice on a machine."""

from __future__ import annotations

import platform
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from runner.storage.artifact import Artifact, FileEntry
from runner.storage.atomic import read_state, unsealed, write_state
from runner.storage.digest import digest_bytes, digest_file
from runner.storage.small import read_small
from runner.text import count_text

SET_MANIFEST = "_manifest.json"
_ALWAYS_READ_BYTES = 16 << 20
_NUM_THREADS = 8


class Digests:
    """SHA-256 of files, remembered while size, times of change of content and metadata, and inode stay the same.

    folder: holds the memory, a file for each machine, so that every machine reads a file once itself. None: nothing is
    remembered. Small files are always read.
    """

    def __init__(self, folder: Path | None) -> None:
        self._file = folder / f"{digest_bytes(platform.node().encode())[:12]}.json" if folder else None
        self._lock = threading.Lock()
        self._known: dict[str, Any] = {}
        self._changed = False
        with suppress(RunnerError, OSError):  # a damaged memory is forgotten
            self._known = read_state(self._file) if self._file else {}

    def of(self, path: Path) -> str:
        """The file's digest. Raises OSError when it cannot be read."""
        stat = path.stat()
        if stat.st_size <= _ALWAYS_READ_BYTES:
            return digest_file(path)
        mark = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        seen = self._known.get(str(path), [])
        if seen[:4] == mark:
            return str(seen[4])
        digest = digest_file(path)
        with self._lock:
            self._known[str(path)] = [*mark, digest]
            self._changed = True
        return digest

    def save(self) -> None:
        """Keep what has been read. A place that cannot be written to costs the next run another reading."""
        with suppress(OSError), self._lock:
            if self._file is not None and self._changed:
                there = {path: seen for path, seen in self._known.items() if Path(path).exists()}
                write_state(self._file, there)
                self._changed = False


def damage(artifact: Artifact, digests: Digests) -> str:
    """Why the artifact's local files are not what its digest says, or "" when they are.

    Every file is read, or was read on this machine and has not changed since. A set in an object store is verified
    where it is fetched, and an endpoint has no files.
    """
    if artifact.kind != "files" or "://" in artifact.uri:
        return ""
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        found = list(pool.map(lambda entry: _file_damage(artifact, entry, digests), artifact.files))
    digests.save()
    return next((f"{artifact.name} {why}" for why in (*found, _manifest_damage(artifact)) if why), "")


def _file_damage(artifact: Artifact, entry: FileEntry, digests: Digests) -> str:
    path = artifact.path / entry.path
    if not path.is_file():
        return f"is gone: {path}"
    size = path.stat().st_size
    if size != entry.size_bytes:
        return f"is damaged: {path} has {count_text(size, 'byte')}, not {entry.size_bytes}"
    try:
        same = digests.of(path) == entry.sha256
    except OSError as error:
        return f"cannot be read: {path}: {error.strerror or error}"
    return "" if same else f"is damaged: the content of {path} has changed"


def _manifest_damage(artifact: Artifact) -> str:
    """Whether a set of a folder store has lost its manifest, without which nobody finds it."""
    if not artifact.in_store:
        return ""
    path = artifact.path / SET_MANIFEST
    try:
        values = unsealed(read_small(path), str(path))
    except FileNotFoundError:
        return f"is incomplete: {path} is gone"
    except (OSError, RunnerError) as error:
        return f"is incomplete: {error}"
    return "" if values.get("sha256") == artifact.sha256 else f"is another one by now: {path}"
