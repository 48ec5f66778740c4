"""What recipe values mean to a result, for fingerprints: files behind paths, and no arguments without effect."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from runner.storage.digest import digest_file

_MOST_READ_BYTES = 64 << 20


def without(values: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """The mapping without these keys."""
    return {name: value for name, value in values.items() if name not in names}


def file_state(path: Path) -> str | None:
    """The file's digest; of one above 64 MiB its size, inode and both times of change; None where there is none."""
    try:
        stat = path.stat()
        if stat.st_size > _MOST_READ_BYTES:
            return f"{stat.st_size} bytes, changed {stat.st_mtime_ns}, {stat.st_ctime_ns}, inode {stat.st_ino}"
        return _digest(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    except OSError:
        return None


@lru_cache(maxsize=256)
def _digest(path: Path, size_bytes: int, mtime_ns: int, ctime_ns: int) -> str:
    """A run plans again after every stage, and reads the file once."""
    return digest_file(path)
