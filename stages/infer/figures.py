"""A batch job's predictions on their way into the journal, and their figures: how many, how fast."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from runner.text import count_text
from stages.infer.journal import Journal
from stages.serve.health import Progress

T = TypeVar("T")
_TELL_EVERY_S = 2.0


@dataclass
class Figures:
    """Rates of this attempt, which leave out the engine's start. begin: when the stage began (Unix time, s).

    continued: predictions that an interrupted attempt had made.
    """

    begin: float
    continued: int = 0
    ready: float = 0.0
    num_rows: int = 0
    num_tokens: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a prediction, as `answer` makes it."""
        self.ready = min(self.ready or row["started_at"], row["started_at"])
        self.num_rows += 1
        self.num_tokens += row["num_tokens"]

    def so_far(self, journal: Journal) -> dict[str, Any]:
        """What is shown with the progress."""
        rate = round(self.num_tokens / max(time.time() - self.ready, 1e-3))
        return {"tokens_per_s": rate, **({"errors": journal.num_errors} if journal.num_errors else {})}

    def summary(self, journal: Journal) -> dict[str, Any]:
        """The stage's metrics. Counts are of all attempts, rates (per second of generating) and times of this one."""
        end = time.time()
        ready = self.ready or end  # nothing was left to predict
        generating_s = max(end - ready, 1e-3)
        return {
            "num_predictions": journal.count,
            "num_continued": self.continued,
            "num_errors": journal.num_errors,
            "output_tokens": journal.num_tokens,
            "rows_per_s": round(self.num_rows / generating_s, 2),
            "output_tokens_per_s": round(self.num_tokens / generating_s, 1),
            "engine_start_s": round(ready - self.begin, 1),
            "wall_s": round(end - self.begin, 1),
        }


def continued_text(journal: Journal) -> str:
    """What of an interrupted attempt is reused, in a sentence; "" when there was none."""
    parts = []
    if journal.count:
        were = count_text(journal.num_expected, "prediction was", "predictions were")
        parts.append(f"continued: {journal.count:,} of {were} done")
    if journal.num_damaged:
        parts.append(f"{journal.num_damaged:,} damaged and predicted again")
    return ", ".join(parts)


def note(metrics: Mapping[str, Any]) -> str:
    """One line of what was predicted and how fast."""
    parts = [f"{count_text(metrics['num_rows'], 'row')} by {' and '.join(metrics['variants'])}"]
    if metrics["num_continued"] < metrics["num_predictions"]:
        parts.append(f"{metrics['output_tokens_per_s']:.0f} output tokens/s")
        parts.append(f"engine ready in {metrics['engine_start_s']:.0f} s")
    if metrics["num_continued"]:
        parts.append(f"{metrics['num_continued']} of {metrics['num_predictions']} predictions continued")
    if metrics["num_errors"]:
        parts.append(f"{metrics['num_errors']} refused by the engine")
    return ", ".join(parts)


def telling_start(batches: Iterable[T], tell: Callable[[str], None], state: Callable[[], str]) -> Iterator[T]:
    """The batches. Until the first has come, `tell` gets what the engine does by `state`, every 2 s."""
    came = threading.Event()

    def watch() -> None:
        while not came.wait(_TELL_EVERY_S):
            tell(state())

    watching = threading.Thread(target=watch, name="engine's start", daemon=True)
    watching.start()
    try:
        for batch in batches:
            came.set()
            watching.join()
            yield batch
    finally:
        came.set()


def collect(batches: Iterable[list[dict[str, Any]]], journal: Journal, figures: Figures, progress: Progress) -> None:
    """Write the predictions into the journal as they come, and tell how far it is."""
    for batch in batches:
        for row in batch:
            journal.add(row["index"], row["variant"], row["line"])
            figures.add(row)
        journal.flush()
        if batch:
            progress.update(journal.count, journal.num_expected, "prediction", **figures.so_far(journal))
