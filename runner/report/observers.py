"""Who looks on at a run: the terminal, the report's pages, tracking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runner.errors import cause_of
from runner.pipeline.events import (
    Event,
    Observer,
    OutputMoved,
    Remarked,
    ResultsWritten,
    RunEnded,
    RunStarted,
    StageFinished,
    StageProgressed,
    StageStarted,
    StaysUp,
    WorkEnded,
)
from runner.recipe.schema import Recipe
from runner.report.terminal import Report


def observers(report: Report) -> list[Observer]:
    """Those of a run that a person has started. The pages are there before tracking logs them."""
    return [OnTerminal(report), Pages(report.say), Tracking(report.say)]


@dataclass(frozen=True)
class OnTerminal:
    """Shows a run as it goes."""

    report: Report

    def notify(self, event: Event) -> None:
        report = self.report
        match event:
            case RunStarted():
                report.start(event.recipe, event.steps, event.folder)
            case OutputMoved():
                report.write_to(event.terminal)
            case StageStarted():
                report.stage_started(event.stage)
            case StageProgressed():
                report.progress(event.stage, event.progress)
            case StageFinished():
                report.stage_finished(event.record, event.log)
            case Remarked():
                report.say(event.text)
            case StaysUp():
                report.stays_up(event.text)
            case WorkEnded():
                report.stop()
            case RunEnded():
                report.end(event.summary, event.folder, event.command, event.code)


@dataclass(frozen=True)
class Pages:
    """Writes report.html and report.md into the run's folder. A run is not worse for a page that cannot be made."""

    say: Callable[[str], None]

    def notify(self, event: Event) -> None:
        if isinstance(event, StaysUp | ResultsWritten):
            self._write(event.folder)

    def _write(self, folder: Path) -> None:
        try:
            from runner.report.pages import write_report

            write_report(folder)
        except Exception as error:
            self.say(f"no report.html: {cause_of(error)}")


@dataclass(frozen=True)
class Tracking:
    """Logs the run where the recipe says (`tracking`). A run is not worse for a server that does not answer."""

    say: Callable[[str], None]

    def notify(self, event: Event) -> None:
        if isinstance(event, ResultsWritten) and event.recipe.tracking is not None:
            self._track(event.recipe, event.folder)

    def _track(self, recipe: Recipe, folder: Path) -> None:
        try:
            from runner.report.tracking import track

            self.say(f"logged to {recipe.tracking}: {track(folder, recipe.storage.runs)}")
        except Exception as error:
            self.say(f"not logged to {recipe.tracking}: {cause_of(error)}")
