"""What the stages of a run tell of it: outcomes for the terminal, parts for the page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.errors import RecipeError, RunnerError
from runner.pipeline.engine.progress import read_progress
from runner.pipeline.manifest import Manifest
from runner.pipeline.registry import LOAD_ERRORS, load_stage
from runner.pipeline.results import FinishedRun, HasOutcome, HasPage, Outcome, Part, Verdict
from runner.pipeline.run_locks import holder_of_run
from runner.pipeline.runs import IDENTITY
from runner.storage.atomic import read_state


@dataclass(frozen=True)
class StagePart:
    """A stage's part, or why there is none. number: the stage's place in the run."""

    stage: str
    part: Part
    failure: str = ""


def finished_run(folder: Path) -> FinishedRun:
    """The run of that folder. Raises RunnerError when its manifest cannot be read."""
    return FinishedRun(Manifest.load(folder), state_of(folder / "recipe.json"), folder)


def state_of(path: Path) -> dict[str, Any]:
    """A state file's values; none when it is gone or damaged."""
    with suppress(RunnerError, OSError):
        return {key: value for key, value in read_state(path).items() if key != "self_sha256"}
    return {}


def _stages(run: FinishedRun) -> Iterator[tuple[str, Any]]:
    for record in run.manifest.stages:
        with suppress(RecipeError, *LOAD_ERRORS):
            yield record.name, load_stage(record.name)


def parts_of(run: FinishedRun) -> list[StagePart]:
    """The parts in the order of the page. A stage whose part cannot be made has the reason instead."""
    found = []
    for name, stage in _stages(run):
        if isinstance(stage, HasPage):
            try:
                found.append(StagePart(name, stage.page(run)))
            except Exception as error:  # a fault in one part must not cost the page
                found.append(StagePart(name, Part(), f"{type(error).__name__}: {error}"))
    return sorted(found, key=lambda each: each.part.order)


def outcomes_of(run: FinishedRun) -> list[Outcome]:
    """What the stages say at the run's end, in the order of the pipeline."""
    found = []
    for name, stage in _stages(run):
        if isinstance(stage, HasOutcome):
            try:
                found.append(stage.outcome(run))
            except Exception as error:
                found.append(Outcome(remarks=[f"{name} has no outcome: {type(error).__name__}: {error}"]))
    return found


def status_now(run: FinishedRun) -> str:
    """The manifest's status, or `killed` where it says running and no process is at it."""
    status = run.manifest.status
    if status == "running" and holder_of_run(run.folder, state_of(run.folder / IDENTITY)) is None:
        return "killed"
    return status


def stopped_in(run: FinishedRun) -> str:
    """The stage in which a run ended early: by its record, else the one that its progress names; "" for none, as
    between two stages."""
    ended = next((each.name for each in run.manifest.stages if each.status in ("failed", "interrupted")), "")
    noted = str((read_progress(run.folder) or {}).get("stage", ""))
    return ended or ("" if any(each.name == noted for each in run.manifest.stages) else noted)


def verdict_of(run: FinishedRun, outcomes: list[Outcome]) -> Verdict:
    """What became of the run: why it ended early, else the verdict of a stage, else the last stage's note."""
    manifest, status = run.manifest, status_now(run)
    failed = next((record for record in manifest.stages if record.status == "failed"), None)
    if manifest.status == "failed" and failed:
        return Verdict("bad", f"{failed.name} failed", failed.error or "")
    own = next((outcome.verdict for outcome in outcomes if outcome.verdict), None)
    if manifest.status == "gate_refused":
        return own or Verdict("bad", "The quality gate refused the result", _missed(run))
    if status == "running":
        return own or Verdict("plain", "Running", _last_note(manifest))
    if status != "done":
        title, stopped = status.replace("_", " ").capitalize(), stopped_in(run)
        before = f" after {manifest.stages[-1].name}" if manifest.stages else ""
        return Verdict("bad", f"{title} during {stopped}" if stopped else f"{title}{before}")
    return own or Verdict("plain", "Done", _last_note(manifest))


def _missed(run: FinishedRun) -> str:
    gates = [record.metrics["gate"] for record in run.manifest.stages if "gate" in record.metrics]
    return "; ".join(gates[0]["missed"]) if gates else ""


def _last_note(manifest: Manifest) -> str:
    """The last note of a stage that was successful."""
    notes = [f"{record.name}: {record.note}" for record in manifest.stages if record.note and record.status == "done"]
    return notes[-1] if notes else ""
