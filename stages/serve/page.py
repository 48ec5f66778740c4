"""The endpoint at a run's end and in the report: where it was, and how to bring it back."""

from __future__ import annotations

import shlex
from pathlib import Path

from runner.pipeline.results import Card, FinishedRun, Outcome, Part
from runner.text import duration_text


def page(run: FinishedRun) -> Part:
    metrics = run.metrics("serve")
    if "startup_s" not in metrics:
        return Part()
    return Part(cards=[Card("endpoint ready in", duration_text(metrics["startup_s"]), "first answers included")])


def outcome(run: FinishedRun) -> Outcome:
    """The endpoint ends with the run; the same adapter can be served again."""
    endpoint = run.manifest.artifact("endpoint")
    if endpoint is None or not run.metrics("serve"):
        return Outcome()
    names = [name for name in (endpoint.meta.get("base"), endpoint.meta.get("adapter")) if name]
    names += (endpoint.meta.get("others") or {}).values()
    text = f"{endpoint.uri} served {' and '.join(names)}; it has ended with the run"
    return Outcome(lines=[("endpoint", text), ("serve again", serve_command(run))])


def serve_command(run: FinishedRun) -> str:
    """The command that serves this run's adapter again, until Ctrl-C."""
    root = run.folder.parent.parent
    words = ["python", "-m", "runner", "serve", f"runs=[{run.manifest.run_id}]"]
    if root != Path("runs").resolve():
        words.append(f"storage.root={root}")
    return shlex.join(words)
