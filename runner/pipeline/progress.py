"""progress.json in a run's folder: what the run is doing now, for whoever looks from another terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

PROGRESS = "progress.json"
_EVERY_S = 2.0


class ProgressFile:
    """Writes the file when a stage begins and at most every 2 s while it works. It is for people: not being able to
    write it does not matter, and after a crash it may be old.

    dashboard: gives the address of Ray's dashboard, "" where there is none.
    """

    def __init__(
        self, folder: Path, stages: Sequence[str], dashboard: Callable[[], str], now: Callable[[], float] = time.time
    ) -> None:
        self._path, self._dashboard, self._now = folder / PROGRESS, dashboard, now
        self._state: dict[str, Any] = {"stages": list(stages), "stage": "", "stage_began_at": 0.0, "event": None}
        self._written_at = 0.0

    def begin(self, stage: str) -> None:
        """A stage starts."""
        self._state |= {"stage": stage, "stage_began_at": self._now(), "event": None}
        self._write()

    def update(self, stage: str, event: dict[str, Any]) -> None:
        """An event of `ProgressHandle.update`: `{done, total, unit, ...}`."""
        if stage == self._state["stage"]:
            self._state["event"] = event
            if self._now() - self._written_at >= _EVERY_S:
                self._write()

    def _write(self) -> None:
        self._written_at = self._now()
        state = {**self._state, "updated_at": self._written_at, "dashboard": self._dashboard()}
        temporary = self._path.with_name(f".{PROGRESS}.tmp")
        with suppress(OSError):
            temporary.write_text(json.dumps(state) + "\n", encoding="utf-8")
            temporary.replace(self._path)


def read_progress(folder: Path) -> dict[str, Any] | None:
    """What the file says; None when there is none, or it cannot be read."""
    try:
        state = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) else None
