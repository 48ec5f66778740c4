"""Files that outlive a crash: what is put in place is on the disk first, and so is the folder that names it."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from runner.storage.digest import digest_json
from runner.storage.small import read_small

TEMPORARY_SUFFIX = ".tmp"
_SEAL = "self_sha256"
_MOST_BYTES = 1 << 30


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the file in one step: a reader sees the old content or the new, never a part; parents are made.

    When this returns, the new content survives a loss of power. Leftovers of a killed process end in `.tmp`.
    """
    make_folder(path.parent)
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


def make_folder(folder: Path) -> None:
    """Make the folder and those above it that are missing. The names of all that were made are on the disk then."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in reversed(missing):
        sync_folder(each.parent)


def sync_tree(folder: Path) -> None:
    """Have every file and folder below the folder, itself, and its name, on the disk before this returns."""
    for path in folder.rglob("*"):
        if path.is_dir() or path.is_file():
            sync_file(path)
    sync_folder(folder)
    sync_folder(folder.absolute().parent)


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed while they wrote a file left in the folder."""
    for path in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace the file in one step: a reader sees the old content or the new, never a part; parents are made."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """`write_text` of the value as indented JSON."""
    write_text(path, indented(value))


def write_state(path: Path, values: Mapping[str, Any]) -> None:
    """`write_json` of a mapping that the runner will read again, with a digest of itself under `self_sha256`."""
    write_text(path, indented(sealed(values)))


def read_state(path: Path) -> dict[str, Any]:
    """What `write_state` wrote. Raises RunnerError naming the file when it is corrupt or edited, OSError when it is not
    there, or not a file of a disk."""
    return unsealed(read_small(path, _MOST_BYTES), str(path))


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping with a digest of itself under `self_sha256`."""
    plain: dict[str, Any] = json.loads(json.dumps(values))  # as it will be read: the keys are text
    return {**plain, _SEAL: digest_json(plain)}


def unsealed(data: bytes, shown: str) -> dict[str, Any]:
    """The mapping of a sealed JSON document without its digest. Raises RunnerError when that is not its digest.

    shown: what to call the document.
    """
    try:
        values = json.loads(data)
        digest = values.pop(_SEAL)
        why = "" if digest == digest_json(values) else f"its content has changed since it was written ({_SEAL})"
    except (ValueError, RecursionError) as error:
        why = f"not JSON: {error}"
    except (AttributeError, KeyError, TypeError):
        why = f"it has no {_SEAL}"
    if why:
        raise RunnerError(f"{shown} is damaged: {why}", "Restore it, or remove it and run again.")
    assert isinstance(values, dict)
    return values


def indented(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
