"""What the person at the terminal sees. The only importer of rich."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from runner.errors import EXIT_DONE, EXIT_GATE_REFUSED, EXIT_INTERRUPTED, Problem, RunnerError, printable
from runner.pipeline.manifest import StageRecord
from runner.pipeline.plan import Step
from runner.recipe.schema import Recipe
from runner.storage.artifact import Artifact
from runner.sweep.state import Sweep

if TYPE_CHECKING:
    from runner.pipeline.estimates import Estimate

_MARKS = {"done": "[green]✔[/]", "skipped": "[cyan]≡[/]", "failed": "[red]✘[/]", "interrupted": "[yellow]■[/]"}
_QUIET_EVERY_S = 15.0


class _Console(Console):
    """A console that shows what steers a terminal as text: rows and messages of libraries may hold it."""

    def render_str(self, text: str, **how: Any) -> Text:
        """Rich calls this for each text that it is given, those in tables included."""
        return super().render_str(printable(text), **how)


class Report:
    """Prints a run as it goes: a live line on a terminal, a line now and then in a log."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._fixed = stream is not None
        self._console = _console(stream or sys.stdout)
        self._live: Progress | None = None
        self._task: Any = None
        self._stage = ""
        self._since = 0.0
        self._spoke = 0.0
        self._jobs: Live | None = None
        self._said: dict[str, str] = {}

    def write_to(self, terminal: TextIO) -> None:
        """Print there from now on, unless the report was given a stream of its own."""
        if not self._fixed and terminal is not self._console.file:
            self._console = _console(terminal)

    def start(self, recipe: Recipe, steps: Sequence[Step], folder: Path) -> None:
        self._console.print(f"[bold]{escape(recipe.name)}[/]  {escape(str(folder))}")
        self.plan(recipe, steps)

    def plan(self, recipe: Recipe, steps: Sequence[Step]) -> None:
        table = Table(box=None, pad_edge=False)
        for column in ("stage", "", "why", "resources", "makes"):
            table.add_column(column)
        for step in steps:
            style = "cyan" if step.action == "skip" else ""
            makes = ", ".join(step.stage.provides)
            table.add_row(
                step.name, step.action, escape(step.why), resources_text(recipe, step.name), makes, style=style
            )
        self._console.print(table)
        self._warn_of_code(recipe)

    def plan_in_full(self, recipe: Recipe, steps: Sequence[Step], estimates: Mapping[str, Sequence[Estimate]]) -> None:
        """Each stage with run or skip and why, resources, inputs, outputs and estimates; folded to the terminal."""
        for step in steps:
            style = "bold cyan" if step.action == "skip" else "bold"
            self._console.print(f"[{style}]{step.name}[/]  {step.action}: {escape(step.why)}", soft_wrap=False)
            table = Table.grid(padding=(0, 2, 0, 0))
            table.add_column(no_wrap=True, min_width=21)
            table.add_column(no_wrap=True, min_width=11, justify="right")
            table.add_column(overflow="fold")
            table.add_row("  resources", "", escape(resources_text(recipe, step.name)))
            for label, names in (("takes", step.input_digests(recipe)), ("makes", dict.fromkeys(step.stage.provides))):
                if names:
                    table.add_row(f"  {label}", "", ", ".join(_artifact_text(step, *each) for each in names.items()))
            for each in estimates.get(step.name, ()):
                table.add_row(f"  {each.what}", _amount_text(each), escape(_basis_text(each)))
            self._console.print(table)
        if text := _time_text(estimates):
            self._console.print(text, markup=False)
        self._warn_of_code(recipe)

    def _warn_of_code(self, recipe: Recipe) -> None:
        if recipe.model.trust_remote_code:
            self._console.print("[bold red]model.trust_remote_code is on: code of the model's repository will run[/]")

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
        self._stage, self._since, self._spoke = name, time.monotonic(), time.monotonic()
        if self._console.is_terminal:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(24),
                TextColumn("{task.fields[text]}"),
            )
            self._live = Progress(*columns, console=self._console, transient=True)
            self._task = self._live.add_task(name, total=None, text="")
            self._live.start()

    def progress(self, stage: str, event: dict[str, Any]) -> None:
        """Show an event of `ProgressHandle.update`."""
        if stage != self._stage:
            return
        text = progress_text(event)
        if self._live is not None:
            self._live.update(self._task, completed=event["done"], total=event["total"], text=text)
        elif time.monotonic() - self._spoke > _QUIET_EVERY_S:
            self._spoke = time.monotonic()
            self._console.print(f"  {stage}: {text}", markup=False)

    def stage_finished(self, record: StageRecord, log: Path) -> None:
        self.stop()
        note = record.note if record.status != "failed" else (record.error or "")
        line = f"{record.name:<9} {record.wall_s:7.1f} s  {note}"
        self._console.print(f"{_MARKS[record.status]} {escape(line)}")
        for warning in record.warnings:
            self._console.print(f"  {warning}", style="yellow", markup=False)
        if record.status == "failed":
            self._console.print(f"  log: {log}", markup=False)

    def say(self, message: str) -> None:
        self._console.print(message, markup=False)

    def endpoint_up(self, endpoint: Artifact) -> None:
        from stages.serve.stage import endpoint_banner

        self._console.print(endpoint_banner(endpoint), markup=False)
        self._console.print("Press Ctrl-C to take it down.", markup=False)

    def stop(self) -> None:
        """Take the live line off the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._jobs is not None:
            self._jobs.stop()
            self._jobs = None

    def end(self, summary: dict[str, Any], folder: Path, command: str, code: int) -> None:
        self._console.print(_stage_table(summary))
        for line in score_lines(summary):
            self._console.print(line, markup=False)
        for artifact in summary["artifacts"]:
            if artifact["bytes"]:
                size = size_text(artifact["bytes"])
                self._console.print(
                    f"{artifact['name']:<17} {size:>9}  {artifact['sha256'][:12]}  {artifact['uri']}", markup=False
                )
        self._console.print(f"run folder: {folder}", markup=False)
        if (folder / "report.html").is_file():
            self._console.print(f"report: {folder / 'report.html'}", markup=False)
        if code == EXIT_GATE_REFUSED:
            for missed in summary["gate"]["missed"]:
                self._console.print(f"gate: {missed}", style="red", markup=False)
        elif code != EXIT_DONE:
            word = "interrupted" if code == EXIT_INTERRUPTED else "failed"
            self._console.print(f"{word}; continue with: {command}", markup=False)

    def jobs(self, views: Sequence[tuple[str, str, str]]) -> None:
        """The jobs that run side by side, a line each: name, stage, progress. A log gets one for each new stage."""
        if self._console.is_terminal:
            text = Text("\n".join(f"{name}: {stage}  {detail}".rstrip() for name, stage, detail in views))
            if self._jobs is None:
                self._jobs = Live(console=self._console, transient=True, auto_refresh=False)
                self._jobs.start()
            self._jobs.update(text, refresh=True)
            return
        for name, stage, _ in views:
            if self._said.get(name) != stage:
                self._said[name] = stage
                self._console.print(f"{name}: {stage}", markup=False)

    def sweep(self, sweep: Sweep, folder: Path) -> None:
        """The jobs as a table, the best one marked."""
        best, changes = sweep.best(), sweep.changes()
        table = Table(box=None, pad_edge=False)
        for column in ("job", *(changes[0] if changes else ()), sweep.objective, "", "outcome"):
            table.add_column(column)
        for job, changed in zip(sweep.jobs, changes, strict=True):
            value = "" if job.value is None else f"{job.value:.3f}"
            interval = "[{:.2f}, {:.2f}]".format(*job.interval) if job.interval else ""
            outcome = "best" if job is best else f"{job.status.replace('_', ' ')} {job.error}".strip()
            cells = [str(job.number), *changed.values(), value, interval, outcome]
            table.add_row(*map(escape, cells), style="bold green" if job is best else "")
        self._console.print(table)
        self._console.print(f"sweep folder: {folder}", markup=False)

    def error(self, error: RunnerError, problems: Sequence[Problem] = ()) -> None:
        """Explain a failure; of an invalid recipe every problem."""
        self._console.print(f"[red]error:[/] {escape(error.message)}")
        for problem in problems:
            value = "" if problem.value is None else f" = {problem.value!r}"
            self._console.print(f"  {problem.key}{value}", style="bold", markup=False)
            self._console.print(f"    {problem.message}", markup=False)
            for text in (problem.hint, problem.origin and f"set by {problem.origin}"):
                if text:
                    self._console.print(f"    {text}", markup=False, style="dim")
        if error.hint:
            self._console.print(f"  {error.hint}", markup=False)


def _console(stream: TextIO) -> Console:
    # Without a terminal rich assumes 80 columns and folds the tables; a log has no width.
    width = None if stream.isatty() else 160
    return _Console(file=stream, width=width, highlight=False, soft_wrap=True)


def progress_text(event: dict[str, Any]) -> str:
    """One line of a progress event: `37/64 step  loss=0.41  rate=1.9/s  48 s left`."""
    total = "" if event["total"] is None else f"/{event['total']:g}"
    parts = [f"{event['done']:g}{total} {event['unit']}"]
    for name, value in event.items():
        if name in ("done", "total", "unit", "seconds_left") or value is None:
            continue
        parts.append(f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}")
    if event.get("seconds_left") is not None:
        parts.append(f"{event['seconds_left']:.0f} s left")
    return "  ".join(parts)


def score_lines(summary: dict[str, Any]) -> list[str]:
    lines = []
    for variant in ("tuned", "base"):
        scores = summary["scores"].get(variant)
        if scores:
            figures = "  ".join(f"{name}={value:.3f}" for name, value in scores.items() if isinstance(value, float))
            lines.append(f"{variant:<6} n={scores['n']}  {figures}")
    query = summary["query"]
    if query:
        lines.append(f"first token {query['first_token_s'] * 1000:.0f} ms  {query['tokens_per_s']:.1f} tokens/s")
    return lines


def resources_text(recipe: Recipe, stage: str) -> str:
    """A stage's resources in a few words: `4 x (4 CPU, 1 GPU A10G) PACK`."""
    resources = recipe.resources_of(stage)
    parts = [f"{resources.cpus_per_worker:g} CPU"]
    if resources.gpus_per_worker:
        parts.append(f"{resources.gpus_per_worker:g} GPU {resources.accelerator_type or ''}".strip())
    parts += [f"{amount:g} {name}" for name, amount in resources.custom.items()]
    text = ", ".join(parts)
    if resources.num_workers > 1:
        text = f"{resources.num_workers} x ({text}) {resources.placement_strategy}"
    return text


def _artifact_text(step: Step, name: str, sha256: str | None) -> str:
    """An artifact's name, with its digest and size where they are known."""
    made = step.output(name)
    if made:
        return f"{name} ({made['sha256'][:8]}, {size_text(made['bytes'])})"
    return f"{name} ({sha256[:8]})" if sha256 else name


def _amount_text(estimate: Estimate) -> str:
    if estimate.value is None:
        return "unknown"
    most = "<= " if estimate.most else ""
    if estimate.unit == "bytes":
        return most + size_text(estimate.value)
    return f"{most}{estimate.value:,.0f} {estimate.unit}"


def _time_text(estimates: Mapping[str, Sequence[Estimate]]) -> str:
    """How long the stages take that run, one after another, the longest first; "" when it is known of none."""
    times = {stage: each.value for stage, found in estimates.items() for each in found if each.what == "time"}
    known = {stage: value for stage, value in times.items() if value is not None}
    if not known:
        return ""
    longest = sorted(known, key=lambda stage: -known[stage])
    parts = [f"{stage} {known[stage]:,.0f} s" for stage in longest if known[stage] >= 1]
    unknown = [stage for stage in times if stage not in known]
    parts += [f"{' and '.join(unknown)} unknown"] if unknown else []
    least = "at least " if unknown else ""
    return f"one stage after another: {least}{sum(known.values()):,.0f} s ({', '.join(parts)})"


def _basis_text(estimate: Estimate) -> str:
    parts = " + ".join(f"{name} {size_text(size)}" for name, size in estimate.parts.items())
    return f"{parts}; {estimate.basis}" if parts else estimate.basis


def size_text(size_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024 or unit == "GiB":
            break
        size_bytes /= 1024
    return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"


def _stage_table(summary: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "status", "time"):
        table.add_column(column)
    for stage in summary["stages"]:
        status = stage["status"] + (f" (from {stage['origin_run']})" if stage["origin_run"] else "")
        table.add_row(stage["name"], status, f"{stage['wall_s']:.1f} s")
    table.add_row("total", summary["status"], f"{summary['wall_s']:.1f} s", style="bold")
    return table
