"""What can happen to a file: a byte flips, it is cut, it is gone, or another valid one stands in its place."""

from __future__ import annotations

import os
from pathlib import Path

HARMS = ("flipped", "cut", "deleted", "replaced")


def harmed(data: bytes, harm: str, other: bytes) -> bytes | None:
    """What is there afterwards, None where nothing is. other: content of another valid file of the same kind."""
    if harm == "deleted":
        return None
    if harm == "replaced":
        assert other != data
        return other
    if harm == "cut":
        return data[: len(data) // 2]
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x01]) + data[middle + 1 :]


def harm_file(path: Path, harm: str, other: bytes) -> None:
    """Harm the file and leave its time of change as it was, as a disk that loses bits or a careful copy does."""
    stat = path.stat()
    left = harmed(path.read_bytes(), harm, other)
    if left is None:
        path.unlink()
        return
    path.write_bytes(left)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
