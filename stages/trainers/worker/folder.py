"""The folder that a worker trains in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def work_folder(job: str, rank: int, node_rank: int) -> Iterator[Path]:
    """A fresh folder in Ray Train's working directory on this node, made the current one; removed at the end.

    job: Ray's id of the run's job. On a cluster of several users, runs of one recipe have one working directory, and
    one would remove the folder of the other.
    The node's workers share the cache of tokenised data: the first makes it and the others read it.
    """
    before = Path.cwd()
    home = before / f"job-{job}"
    work = home / f"rank-{rank}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    os.environ["HF_DATASETS_CACHE"] = str(home / f"datasets-{node_rank}")
    os.chdir(work)
    try:
        yield work
    finally:
        os.chdir(before)
        shutil.rmtree(work, ignore_errors=True)
