"""The end of a run for a person: what became of it, where to look, and what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from runner.errors import EXIT_DONE, EXIT_GATE_REFUSED, EXIT_INTERRUPTED, RunnerError
from runner.pipeline.results import Outcome, Verdict
from runner.report.console import SafeConsole
from runner.text import duration_text, size_text

_COLOURS = {"good": "green", "bad": "red", "plain": "bold"}
_LABEL = 12


def print_end(
    console: SafeConsole, summary: dict[str, Any], folder: Path, command: str, code: int, *, verbose: bool
) -> None:
    """Verdict, remarks, endpoint, report, and the next command; with `verbose` every stage and artifact before.

    command: that continues a run which has ended early; "" says nothing of it.
    """
    if verbose:
        _print_details(console, summary)
    verdict, outcomes = _verdict_and_outcomes(folder, summary)
    took = f"after {duration_text(summary['wall_s'])}"
    console.print()
    console.print(f"[bold {_COLOURS[verdict.kind]}]{escape(verdict.title)}[/]  {took}")
    if verdict.text:
        console.print(verdict.text, markup=False)
    for outcome in outcomes:
        for remark in outcome.remarks:
            console.print(f"! {remark}", style="yellow", markup=False)
    if code in (EXIT_DONE, EXIT_GATE_REFUSED):
        for outcome in outcomes:
            for label, text in outcome.lines:
                _line(console, label, text)
    page = folder / "report.html"
    _line(console, "report" if page.is_file() else "run folder", str(page if page.is_file() else folder))
    if command and code not in (EXIT_DONE, EXIT_GATE_REFUSED):
        word = "interrupted" if code == EXIT_INTERRUPTED else "failed"
        console.print(f"{word}; continue with: {command}", markup=False)


def _verdict_and_outcomes(folder: Path, summary: dict[str, Any]) -> tuple[Verdict, list[Outcome]]:
    """The verdict and what the stages say. The end of a run is shown, whatever is wrong with its files."""
    from runner.report.pages.parts import finished_run, outcomes_of, verdict_of

    try:
        run = finished_run(folder)
    except (RunnerError, OSError) as error:
        return Verdict("bad", summary["status"].replace("_", " ").capitalize(), str(error)), []
    outcomes = outcomes_of(run)
    return verdict_of(run, outcomes), outcomes


def _line(console: SafeConsole, label: str, text: str) -> None:
    """A label and its text in a column; a text that does not fit starts at the left, so that it can be copied."""
    space = " " * max(1, _LABEL - len(label)) if console.width > _LABEL + 2 + len(text) else " "
    console.print(f"{label}:{space}{text}", markup=False)


def _print_details(console: SafeConsole, summary: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "status", "time"):
        table.add_column(column)
    for stage in summary["stages"]:
        status = stage["status"] + (f" (from {stage['origin_run']})" if stage["origin_run"] else "")
        table.add_row(stage["name"], status, duration_text(stage["wall_s"]))
    console.print(table, soft_wrap=False)
    for artifact in summary["artifacts"]:
        if artifact["bytes"]:
            size = size_text(artifact["bytes"])
            console.print(
                f"{artifact['name']:<17} {size:>9}  {artifact['sha256'][:12]}  {artifact['uri']}", markup=False
            )
