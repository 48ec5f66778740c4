"""The folder that a worker trains in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

_SESSION = "session_"  # how the name of Ray's folder of a session begins
_NAME = "recipe-runner-training"


@contextmanager
def work_folder(job: str, node_rank: int) -> Iterator[Path]:
    """A fresh folder of this worker alone, made the current one; removed at the end.

    Of folders whose names are always the same it is the first that no other worker on this node has. cuDNN compiles its
    attention for a GPU when a model first needs it, and CUDA finds the result of an earlier run only where the current
    folder has the same name (`~/.nv/ComputeCache`), while Ray Train's is another in each run. On one H200 the first
    seven steps of a model of 7B took 10.7 s where that was compiled, and 5.4 s where it was found.

    job: Ray's id of the run's job. The job's workers on a node share the cache of tokenised data: the first makes it
    and the others read it.
    """
    before = Path.cwd()
    os.environ["HF_DATASETS_CACHE"] = str(before / f"job-{job}" / f"datasets-{node_rank}")
    lock, work = _first_free(_home(before))
    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        os.chdir(work)
        yield work
    finally:
        os.chdir(before)
        shutil.rmtree(work, ignore_errors=True)
        lock.release()


def _home(before: Path) -> Path:
    """Where these folders are: next to Ray's folders of sessions, on the disk that was chosen for them."""
    sessions = next((each.parent for each in before.parents if each.name.startswith(_SESSION)), before)
    home = sessions / f"{_NAME}-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    return home if home.stat().st_uid == os.getuid() else before


def _first_free(home: Path) -> tuple[FileLock, Path]:
    """A folder, and its lock, which is held. The lock of a process that was killed is free."""
    for number in count():
        lock = FileLock(home / f"{number}.lock")
        with suppress(Timeout):
            lock.acquire(timeout=0)
            return lock, home / str(number)
    raise AssertionError
