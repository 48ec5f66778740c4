"""One run of a resolved recipe at a time, by a lock file that dies with its holder."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runner.errors import LockedError


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold the lock while the block runs. Raises LockedError naming the holder when another process has it.

    The kernel drops the lock when its holder ends, however it ends, so a dead run never blocks the next one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise LockedError(
                f"the same recipe is already running: {_holder(file.read())}",
                "Wait for it or stop it; its results are taken over when you run this again.",
            ) from None
        file.truncate(0)
        file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}))
        file.flush()
        yield
        file.truncate(0)


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
    except ValueError:
        return "by a process that has not said its name"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"]))
    return f"process {holder['pid']} on {holder['host']}, since {since}"
