"""What the person at the terminal sees of a run: the plan, one line a stage, the result. The logs have the rest."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.markup import escape
from rich.table import Table

from runner.errors import EXIT_INTERRUPTED, Problem, RunnerError, shortened
from runner.pipeline.manifest import StageRecord
from runner.pipeline.plan import Step
from runner.recipe.schema import Recipe
from runner.report.console import console_for
from runner.report.ending import print_end
from runner.report.live import LiveLines, StageLine
from runner.report.log_lines import LogLines
from runner.report.plan_view import print_plan, print_plan_in_full
from runner.text import duration_text

if TYPE_CHECKING:
    from runner.pipeline.estimates import Estimate

_MARKS = {"done": "[green]✔[/]", "skipped": "[cyan]≡[/]", "failed": "[red]✘[/]", "interrupted": "[yellow]■[/]"}
_MOST_CHARS = 600  # of a value, and of the override that set it
JobView = tuple[str, str, str, str]


class Report:
    """Prints a run as it goes: a live line on a terminal, a line now and then in a log."""

    def __init__(self, stream: TextIO | None = None, *, verbose: bool = False, of_sweep: bool = False) -> None:
        """verbose: show digests and sizes at the end, too. of_sweep: of a sweep's job, where the sweep itself says how
        to continue when it is interrupted."""
        self._verbose, self._of_sweep = verbose, of_sweep
        self._fixed = stream is not None
        self._console = console_for(stream or sys.stdout)
        self._live: LiveLines | None = None
        self._log: LogLines | None = None
        self._line: StageLine | LogLines = StageLine("")
        self._stage = ""
        self._jobs: Sequence[JobView] = ()
        self._shown: dict[str, str] = {}

    def write_to(self, terminal: TextIO) -> None:
        """Print there from now on, unless the report was given a stream of its own."""
        if not self._fixed and terminal is not self._console.file:
            self._console = console_for(terminal)

    def start(self, recipe: Recipe, steps: Sequence[Step], folder: Path) -> None:
        self._console.print(f"[bold]{escape(recipe.name)}[/]  {escape(str(folder))}")
        self.plan(recipe, steps)

    def plan(self, recipe: Recipe, steps: Sequence[Step]) -> None:
        """A line for each stage: run or skip, and why."""
        print_plan(self._console, recipe, steps)

    def plan_in_full(self, recipe: Recipe, steps: Sequence[Step], estimates: Mapping[str, Sequence[Estimate]]) -> None:
        """Each stage with run or skip and why, resources, inputs, outputs and estimates."""
        print_plan_in_full(self._console, recipe, steps, estimates)

    def diff(self, this: str, other: str, differences: Sequence[dict[str, Any]]) -> None:
        """A line for each key that differs, as `Difference.as_dict` gives it."""
        if not differences:
            self._console.print(f"{this} and {other} are the same", markup=False)
        width = max(len(this), len(other))
        for each in differences:
            self._console.print(each["key"], style="bold", markup=False)
            for side, name in (("this", this), ("other", other)):
                value = json.dumps(each[side]["value"], ensure_ascii=False) if side in each else "(not given)"
                origin = f"  # {each[side]['origin']}" if side in each else ""
                self._console.print(f"  {name:<{width}}  {value}{origin}", markup=False)

    def stage_started(self, name: str) -> None:
        self.stop()
        self._stage = name
        if self._console.can_redraw:
            self._line = line = StageLine(name)
            self._redraw(lambda: [line.parts()])
        else:
            self._line = self._log = LogLines(name, self.say)
            self._log.start()

    def progress(self, stage: str, event: dict[str, Any]) -> None:
        """Show an event of `ProgressHandle.update`."""
        if stage == self._stage:
            self._line.update(event)

    def stage_finished(self, record: StageRecord, log: Path) -> None:
        self.stop()
        note = record.note if record.status != "failed" else (record.error or "")
        line = f"{record.name:<9} {duration_text(record.wall_s):>9}  {note}"
        self._console.print(f"{_MARKS[record.status]} {escape(line)}")
        for warning in record.warnings:
            self._console.print(f"  {warning}", style="yellow", markup=False)
        if record.status == "failed":
            self._console.print(f"  log: {log}", markup=False)

    def say(self, message: str) -> None:
        self._console.print(message, markup=False)

    def stays_up(self, usage: str) -> None:
        self._console.print(usage, markup=False)
        self._console.print("Press Ctrl-C to take it down.", markup=False)

    def stop(self) -> None:
        """Take the live lines off the terminal, and print no more about the running stage."""
        self._stage = ""
        if self._live is not None:
            self._live.stop()
        if self._log is not None:
            self._log.stop()
        self._live = self._log = None

    def end(self, summary: dict[str, Any], folder: Path, command: str, code: int) -> None:
        """What became of the run, where to look, and what to do next."""
        continues = "" if self._of_sweep and code == EXIT_INTERRUPTED else command
        print_end(self._console, summary, folder, continues, code, verbose=self._verbose)

    def jobs(self, views: Sequence[JobView]) -> None:
        """What runs at the same time, a line each: name, stage, progress, what is special about it. A log gets one for
        each new stage."""
        self._jobs = views
        if self._console.can_redraw:
            if self._live is None:
                self._redraw(lambda: [_job_parts(*view) for view in self._jobs])
            return
        for name, stage, _, label in views:
            if self._shown.get(name) != stage:
                self._shown[name] = stage
                self._console.print(f"{name} {label}".rstrip() + f": {stage}", markup=False)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], marked: int | None = None) -> None:
        """A table, one of its rows marked as the best."""
        table = Table(box=None, pad_edge=False)
        for column in columns:
            table.add_column(escape(column), overflow="fold")
        for number, cells in enumerate(rows):
            table.add_row(*map(escape, cells), style="bold green" if number == marked else "")
        self._console.print(table, soft_wrap=False)

    def error(self, error: RunnerError, problems: Sequence[Problem] = ()) -> None:
        """Explain a failure; of an invalid recipe every problem."""
        self._console.print(f"[red]error:[/] {escape(error.message)}")
        for problem in problems:
            value = "" if problem.value is None else f" = {shortened(repr(problem.value), _MOST_CHARS)}"
            self._console.print(f"  {problem.key}{value}", style="bold", markup=False)
            self._console.print(f"    {problem.message}", markup=False)
            for text in (*problem.hint.splitlines(), _set_by(problem)):
                if text:
                    self._console.print(f"    {text}", markup=False, style="dim")
        if error.hint:
            self._console.print(f"  {error.hint}", markup=False)

    def _redraw(self, lines: Any) -> None:
        self._live = LiveLines(self._console, lines)
        self._live.start()


def _set_by(problem: Problem) -> str:
    return problem.origin and f"set by {shortened(problem.origin, _MOST_CHARS)}"


def _job_parts(name: str, stage: str, detail: str, label: str) -> list[str]:
    """The parts of a job's line, the most important first."""
    done, *rest = detail.split("  ")
    return [f"{name} {stage}", done, label, *rest]
