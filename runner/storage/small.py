"""Files that a recipe names and that are read whole: of a disk, and of bounded size."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MIB = 1 << 20


def read_small(path: Path, most_bytes: int = 64 * MIB) -> bytes:
    """The file's content. Raises OSError for what is not there, is a device, a pipe or a folder, or holds more."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # a pipe is not waited for
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("it is a device, a pipe or a folder, and no file of a disk")
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(f"it is larger than {most_bytes >> 20} MiB")
    return content
