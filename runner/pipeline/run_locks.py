"""Which runs are active under a `storage.root`: one of a recipe at a time, and none while run folders are removed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runner.errors import LockedError
from runner.storage.lock import Holder, Lock, hold, holder_of, holders_in

_FOLDER = ".locks"
_CLEAN = "clean"


def lock_path(root: Path, recipe_sha256: str) -> Path:
    """The lock of the recipe of that digest."""
    return root / _FOLDER / recipe_sha256[:16]


def holder_of_run(folder: Path, identity: Mapping[str, Any]) -> Holder | None:
    """The process that runs what is in the run's folder; None when there is none. identity: of its identity.json."""
    return holder_of(lock_path(folder.parent.parent, str(identity.get("recipe_sha256", ""))))


@contextmanager
def one_run(
    root: Path, recipe_sha256: str, command: str, what: str = "the same recipe is already running"
) -> Iterator[Lock]:
    """Be the only run of the recipe, or of the sweep of that digest, while the block lasts. When the lock is lost, this
    process gets SIGTERM.

    what: says that another one is active. Raises LockedError then, and when run folders are being removed.
    """
    with hold(lock_path(root, recipe_sha256), command, what, _end) as lock:
        # Both this and `no_runs` take their own lock first and look for the other's then, so that one of them sees it.
        if (holder := holder_of(root / _FOLDER / _CLEAN)) is not None:
            raise LockedError(f"run folders are being removed: {holder}", "Run again when that is done.")
        yield lock


@contextmanager
def no_runs(root: Path, command: str) -> Iterator[None]:
    """Keep runs from starting while the block lasts. Raises LockedError when one is active.

    A run may use what any other has made, and so holds all of them.
    """
    with hold(root / _FOLDER / _CLEAN, command, "run folders are being removed already"):
        if holders := holders_in(root / _FOLDER, but=_CLEAN):
            raise LockedError(
                f"a run is active in storage.root={root}: {holders[0]}",
                "Nothing is removed meanwhile, since a run may use what others have made. Wait for it, or stop it.",
            )
        yield


def _end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
