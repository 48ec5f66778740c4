"""Files that outlive a crash: what is put in place is on the disk first, and so is the folder that names it."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the file in one step: a reader sees the old content or the new, never a part; parents are made.

    When this returns, the new content survives a loss of power. Leftovers of a killed process end in `.tmp`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{TEMPORARY_SUFFIX}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        move(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def move(source: Path, target: Path) -> None:
    """Give the file or folder another name in the same file system, in place of what had that name (no full folder)."""
    source.replace(target)
    sync_folder(target.parent)


def sync_file(path: Path) -> None:
    """Have the file's content on the disk before this returns."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Have the names in the folder on the disk before this returns."""
    sync_file(folder)


def sync_tree(folder: Path) -> None:
    """Have every file and folder below the folder, and itself, on the disk before this returns."""
    for path in folder.rglob("*"):
        if path.is_dir() or path.is_file():
            sync_file(path)
    sync_folder(folder)


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed while they wrote a file left in the folder."""
    for path in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        path.unlink(missing_ok=True)
