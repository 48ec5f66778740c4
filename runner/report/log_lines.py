"""Lines about a running stage for a log, which nobody can write again in their place."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from runner.pipeline.engine.progress import Pace
from runner.report.progress_text import progress_text
from runner.text import duration_text

_CHANGED_EVERY_S, _SAME_EVERY_S = 15.0, 60.0
_POLL_S = 1.0


class LogLines:
    """Prints how far a stage is: when that has changed, at most every 15 s; otherwise once a minute, so that a log
    tells slow work from none. Each line says how long the stage has taken."""

    def __init__(self, stage: str, say: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        """say: prints a line. now: seconds."""
        self._stage, self._say, self._now, self._pace = stage, say, now, Pace(now)
        self._began_at = self._spoke_at = now()
        self._event: dict[str, Any] | None = None
        self._printed: dict[str, Any] | None = None
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log lines", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Print nothing more."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def update(self, event: dict[str, Any]) -> None:
        """Take an event of `ProgressHandle.update`."""
        with self._lock:
            self._event = self._pace.measured(event)

    def look(self) -> None:
        """Print a line if one is due."""
        with self._lock:
            event = self._event and self._pace.measured(self._event)
        waited, content = self._now() - self._spoke_at, _content(event)
        if waited >= _SAME_EVERY_S or (waited >= _CHANGED_EVERY_S and content != self._printed):
            self._spoke_at, self._printed = self._now(), content
            known = progress_text(event) if event else "at work"
            self._say(f"  {self._stage}: {known}  ({duration_text(round(self._now() - self._began_at))})")

    def _run(self) -> None:
        while not self._end.wait(_POLL_S):
            self.look()


def _content(event: dict[str, Any] | None) -> dict[str, Any] | None:
    """What an event says, without figures that change by themselves: the time that has gone by, and what follows from
    it."""
    if event is None:
        return None
    only_waits = event["unit"] == "s" and event["total"] is None
    by_itself = ("rate_per_s", "seconds_left", *(["done"] if only_waits else []))
    return {name: value for name, value in event.items() if name not in by_itself}
