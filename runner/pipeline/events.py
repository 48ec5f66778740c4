"""What happens in a run, for whoever looks on: the terminal, the report's pages, tracking.

The pipeline knows none of them. The command line hands it observers, and each gets every event, in order.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

from runner.pipeline.manifest import StageRecord
from runner.pipeline.plan import Step
from runner.recipe.schema import Recipe


@dataclass(frozen=True)
class RunStarted:
    """The run's folder is there, and its plan is made."""

    recipe: Recipe
    steps: Sequence[Step]
    folder: Path


@dataclass(frozen=True)
class OutputMoved:
    """What is printed goes to a stage's log from now on; `terminal` leads to where standard output was."""

    terminal: TextIO


@dataclass(frozen=True)
class StageStarted:
    stage: str


@dataclass(frozen=True)
class StageProgressed:
    """progress: `{done, total, unit, ...}` of `ProgressHandle.update`."""

    stage: str
    progress: dict[str, Any]


@dataclass(frozen=True)
class StageFinished:
    """The stage's record is in the manifest, whatever its status. log: the file that holds what was printed."""

    record: StageRecord
    log: Path


@dataclass(frozen=True)
class Remarked:
    """Something that a person should know, and that changes nothing."""

    text: str


@dataclass(frozen=True)
class StaysUp:
    """All stages are done, and what they have started stays until the run is interrupted. text: how to use it."""

    text: str
    folder: Path


@dataclass(frozen=True)
class WorkEnded:
    """No stage works any more, and what they have started is undone."""


@dataclass(frozen=True)
class ResultsWritten:
    """Manifest and summary are in the run's folder; the run's lock is still held."""

    recipe: Recipe
    folder: Path


@dataclass(frozen=True)
class RunEnded:
    """summary: see `runner.pipeline.engine.summary`. code: the exit code. command: what continues the run."""

    summary: dict[str, Any]
    folder: Path
    command: str
    code: int


Event = (
    RunStarted
    | OutputMoved
    | StageStarted
    | StageProgressed
    | StageFinished
    | Remarked
    | StaysUp
    | WorkEnded
    | ResultsWritten
    | RunEnded
)


class Observer(Protocol):
    def notify(self, event: Event) -> None:
        """Take note of the event. An observer looks at those that concern it."""


@dataclass(frozen=True)
class Observers:
    """Tells several observers. One that fails costs neither the run nor the others their event."""

    each: Sequence[Observer]

    def notify(self, event: Event) -> None:
        for observer in self.each:
            try:
                observer.notify(event)
            except Exception:  # the run's results matter more than who looks on
                traceback.print_exc()
