"""Files that a recipe names are read whole only where they are files of a disk, and small."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.storage.small import read_small


def test_a_small_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1234")
    assert read_small(tmp_path / "a", 4) == b"1234"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["device", "pipe", "folder", "large", "missing"])
def test_all_else_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    if kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "large":
        path.write_bytes(bytes(5))
    words = {"large": "larger than", "missing": "No such file", "folder": "a folder|directory"}
    with pytest.raises(OSError, match=words.get(kind, "a device, a pipe")):
        read_small(path, 4)
