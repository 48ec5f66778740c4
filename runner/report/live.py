"""Lines that are drawn again in their place while work continues: a stage's, or one for each job of a sweep."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from runner.pipeline.engine.progress import Pace
from runner.report.console import SafeConsole
from runner.report.progress_text import progress_parts
from runner.text import duration_text

_REDRAWN_PER_S = 4.0


class LiveLines:
    """Draws what `lines()` gives, at the foot of the terminal, until it is stopped; then the lines are gone.

    A line holds parts, the most important first; those that do not fit the terminal's width are left out.
    """

    def __init__(self, console: SafeConsole, lines: Callable[[], Sequence[Sequence[str]]]) -> None:
        self._console, self._lines = console, lines
        self._spinner: Any = Spinner("dots")
        # Rich would put itself in the place of sys.stdout and sys.stderr and print what libraries write above its
        # lines: past the log that the file descriptors lead to.
        self._live = Live(
            get_renderable=self._draw, console=console, transient=True, refresh_per_second=_REDRAWN_PER_S,
            redirect_stdout=False, redirect_stderr=False, vertical_overflow="crop",
        )  # fmt: skip

    def start(self) -> None:
        self._live.start()

    def stop(self) -> None:
        self._live.stop()

    def _draw(self) -> RenderableType:
        mark = str(self._spinner.render(time.monotonic()))
        width = self._console.size.width - 1  # the last column stays free: some terminals wrap when it is written
        return Text("\n".join(fitting([mark, *parts], width) for parts in self._lines()), no_wrap=True)


def fitting(parts: Sequence[str], width: int) -> str:
    """As many of the parts as fit, in order; the first two are cut rather than left out."""
    mark, *rest = [part for part in parts if part]
    line = f"{mark} {rest[0]}" if rest else mark
    for part in rest[1:]:
        if len(line) + 2 + len(part) <= width:
            line = f"{line}  {part}"
    return line if len(line) <= width else f"{line[: max(0, width - 1)]}…"


class StageLine:
    """The running stage's line: name, how far it is, time left, rate, how long it has worked, figures."""

    def __init__(self, stage: str) -> None:
        self._stage, self._began_at, self._pace = stage, time.monotonic(), Pace()
        self._event: dict[str, Any] | None = None
        self._lock = threading.Lock()  # one thread draws it, another updates it

    def update(self, event: dict[str, Any]) -> dict[str, Any]:
        """Take an event of `ProgressHandle.update`. Returns it as `Pace.measured` does."""
        with self._lock:
            self._event = event
            return self._pace.measured(event)

    def parts(self) -> list[str]:
        with self._lock:  # measured again: time left shrinks, and grows when the next advance is overdue
            known = progress_parts(self._pace.measured(self._event)) if self._event else []
        worked = duration_text(round(time.monotonic() - self._began_at))
        return [self._stage, *known[:3], f"({worked})", *known[3:]]
