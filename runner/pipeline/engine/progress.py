"""progress.json in a run's folder: what the run is doing now, for whoever looks from another terminal."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

PROGRESS = "progress.json"
_EVERY_S = 2.0
_RECENT_S = 60.0


class Pace:
    """How fast a stage is by now: over the last minute, or the last two advances where these are longer ago.

    From the start it would be wrong for hours after a slow start, or after a part that was reused from an earlier run.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._seen: deque[tuple[float, float]] = deque()

    def measured(self, event: dict[str, Any]) -> dict[str, Any]:
        """The event of `ProgressHandle.update` with `rate_per_s` and `seconds_left`, None where they are not known."""
        done, total = event["done"], event["total"]
        if self._seen and done < self._seen[-1][1]:
            self._seen.clear()  # it has begun something new
        if not self._seen or done > self._seen[-1][1]:
            self._seen.append((self._now(), done))
        while len(self._seen) > 2 and self._now() - self._seen[1][0] > _RECENT_S:
            self._seen.popleft()
        rate = self._rate()
        left = None
        if rate and total is not None and total > done:
            left = max(0.0, (total - done) / rate - (self._now() - self._seen[-1][0]))
        counts = event["unit"] != "s"
        return {**event, "rate_per_s": rate if counts else None, "seconds_left": left if counts else None}

    def _rate(self) -> float | None:
        """Units a second. An advance that is overdue counts as if it came now."""
        if len(self._seen) < 2:
            return None
        (begin, first), (end, last) = self._seen[0], self._seen[-1]
        usual = (end - begin) / (len(self._seen) - 1)
        elapsed = max(end, self._now() - usual) - begin
        return (last - first) / elapsed if elapsed > 0 else None


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
        self._pace = Pace(now)

    def begin(self, stage: str) -> None:
        """A stage starts."""
        self._state |= {"stage": stage, "stage_began_at": self._now(), "event": None}
        self._pace = Pace(self._now)
        self._write()

    def update(self, stage: str, event: dict[str, Any]) -> None:
        """An event of `ProgressHandle.update`: `{done, total, unit, ...}`."""
        if stage == self._state["stage"]:
            self._state["event"] = self._pace.measured(event)
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
