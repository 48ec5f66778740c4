"""What stands in a fingerprint for files: digests of small ones, and marks of large ones that any change changes."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from runner.storage.digest import digest_file

_MOST_READ_BYTES = 64 << 20


def file_state(path: Path) -> str | None:
    """The file's digest; of one above 64 MiB its size, inode and both times of change; None where there is none."""
    try:
        stat = path.stat()
        if stat.st_size > _MOST_READ_BYTES:
            return f"{stat.st_size} bytes, changed {stat.st_mtime_ns}, {stat.st_ctime_ns}, inode {stat.st_ino}"
        return _digest(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    except OSError:
        return None


def folder_state(folder: Path) -> dict[str, str | None]:
    """The state of every file below the folder, by relative path; without those whose path has a hidden part."""
    paths = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    return {name: file_state(folder / name) for name in paths if "/." not in f"/{name}"}


@lru_cache(maxsize=256)
def _digest(path: Path, size_bytes: int, mtime_ns: int, ctime_ns: int) -> str:
    """A run plans again after every stage, and reads the file once."""
    return digest_file(path)
