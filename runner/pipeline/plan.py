"""What a run will do and why: recipe, stages and earlier runs' records in, run or skip for each stage out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from runner.errors import Problem, RecipeError, RunnerError, UsageError
from runner.pipeline.fingerprint import explain, fingerprint, fingerprint_inputs
from runner.pipeline.fingerprint.remote import Seen
from runner.pipeline.manifest import Manifest, StageRecord
from runner.pipeline.optional import KeepsAlive, LooksOutside
from runner.pipeline.registry import deleted_artifacts, load_stage
from runner.pipeline.runs import run_folders
from runner.pipeline.shared_cache import SharedCache
from runner.pipeline.stage import Stage
from runner.recipe.schema import Recipe, RunOptions
from runner.recipe.secrets import redact
from runner.storage.verify import Digests, damage


@dataclass(frozen=True)
class Step:
    """A stage's part in the plan. `record` is the earlier result that is reused when it is skipped."""

    name: str
    stage: Stage
    action: Literal["run", "skip"]
    why: str
    fingerprint: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)
    record: StageRecord | None = None

    def input_digests(self, recipe: Recipe) -> dict[str, str | None]:
        """Digest of each artifact that the stage needs; None where an earlier stage has yet to write it."""
        known = self.inputs.get("inputs", {})
        return {name: known.get(name) for name in self.stage.needs(recipe)}

    def output(self, name: str) -> dict[str, Any] | None:
        """Digest, bytes and URI of an artifact that is reused; None for one that the stage will write."""
        artifacts = self.record.artifacts if self.record else []
        return next((artifact.summary() for artifact in artifacts if artifact.name == name), None)

    def as_dict(self, recipe: Recipe) -> dict[str, Any]:
        return {
            "stage": self.name,
            "action": self.action,
            "why": self.why,
            "fingerprint": self.fingerprint,
            "needs": list(self.stage.needs(recipe)),
            "provides": list(self.stage.provides),
            "inputs": self.input_digests(recipe),
            "outputs": {name: self.output(name) for name in self.stage.provides},
            "resources": recipe.resources_of(self.name).model_dump(),
        }


@dataclass(frozen=True)
class Plan:
    """Steps in order, and the results reused for stages that were left out of the run."""

    steps: list[Step]
    borrowed: list[StageRecord] = field(default_factory=list)


@dataclass(frozen=True)
class PastRun:
    """An earlier run's folder and manifest."""

    folder: Path
    manifest: Manifest


class PastRuns:
    """Records of earlier runs under `storage.root`, newest first, and behind them those that a store shares.

    shared: looked into for what no run here has made. `remarks`: which of the runs' manifests are damaged. `digests`:
    of files that were read, remembered under the root. `outside`: what lies behind addresses, where a run has looked.
    """

    def __init__(self, root: Path, shared: SharedCache | None = None) -> None:
        self._shared = shared
        self._finished: list[tuple[PastRun, StageRecord]] = []
        self._verified: dict[tuple[str, str], str] = {}
        self.digests = Digests(root / ".digests")
        self.remarks: list[str] = []
        self.outside: Seen = {}
        found = []
        for folder in run_folders(root):
            try:
                manifest = Manifest.load(folder)
            except RunnerError as error:
                self.remarks.append(f"{error.message}; what that run made is not used")
                continue
            except FileNotFoundError:
                continue  # it was removed just now
            found.append(PastRun(folder, manifest))
            if manifest.damage:
                self.remarks.append(manifest.damage)
        for run in sorted(found, key=lambda run: run.manifest.created_at, reverse=True):
            for record in run.manifest.stages:
                # A run that was continued took its own results over.
                if record.status == "done" or record.from_store or record.origin_run == run.manifest.run_id:
                    self._finished.append(
                        (run, record.model_copy(update={"origin_run": record.origin_run or run.manifest.run_id}))
                    )

    def matching(self, name: str, fingerprint: str) -> StageRecord | None:
        """The newest finished record of the stage with that fingerprint."""
        found = next((record for _, record in self.finished(name) if record.fingerprint == fingerprint), None)
        return found or (self._shared.find(name, fingerprint) if self._shared else None)

    def finished(self, name: str) -> Iterator[tuple[PastRun, StageRecord]]:
        """Every finished record of the stage with its run, newest first."""
        return ((run, record) for run, record in self._finished if record.name == name)

    def broken(self, record: StageRecord, wanted: set[str], deleted: set[str]) -> str:
        """Why the record's artifacts cannot be reused, or "". A set of files is read once in a run.

        What was deleted on purpose counts only if wanted, and so does what another machine made: its base model is not
        in the store.
        """
        for artifact in record.artifacts:
            if artifact.name not in wanted and (artifact.name in deleted or record.from_store):
                continue
            key = (artifact.uri, artifact.sha256)
            if key not in self._verified:
                self._verified[key] = damage(artifact, self.digests)
            if self._verified[key]:
                return self._verified[key]
        return ""

    def with_outside(self, stage: Stage, covered: dict[str, Any]) -> dict[str, Any]:
        """The fingerprint's parts, and tags of the content behind addresses: as seen now, else as seen last."""
        if not isinstance(stage, LooksOutside):
            return covered
        kept = redact(covered)["recipe"]
        last = next((each.inputs for _, each in self.finished(stage.name) if each.inputs.get("recipe") == kept), {})
        tags = {**last.get("outside", {}), **self.outside.get(stage.name, {})}
        tags = {key: tag for key, tag in tags.items() if tag}
        return {**covered, "outside": tags} if tags else covered

    def explain(self, name: str, inputs: dict[str, Any]) -> str:
        """Which key, artifact or version makes the stage run, though it may have run before."""
        return explain((record for _, record in self.finished(name)), inputs)


def select(recipe: Recipe, options: RunOptions) -> list[str]:
    """Names of the stages that the options leave, in the recipe's order.

    Raises RecipeError for an unknown name, and for options that leave no stage or contradict each other.
    """
    names = list(recipe.pipeline)
    asked = [("only", name) for name in options.only or []] + [("force", name) for name in options.force]
    asked += [(key, name) for key, name in (("start_at", options.start_at), ("stop_after", options.stop_after)) if name]
    problems = [
        Problem(key, name, f"is not in the pipeline: {', '.join(names)}", "Name a stage of `pipeline`.")
        for key, name in asked
        if name not in names
    ]
    if problems:
        raise RecipeError(problems)
    if options.only is not None:
        return _only(options.only, names, options)
    first = names.index(options.start_at) if options.start_at else 0
    last = names.index(options.stop_after) if options.stop_after else len(names) - 1
    if first > last:
        message = f"comes after stop_after={options.stop_after}, so that no stage would run"
        raise RecipeError([Problem("start_at", options.start_at, message, "Give them in the pipeline's order.")])
    return names[first : last + 1]


def _only(only: Sequence[str], names: Sequence[str], options: RunOptions) -> list[str]:
    message, hint = "", "Leave it out to run every stage, or name some: only=[evaluate]."
    if not only:
        message = "names no stage"
    elif options.start_at or options.stop_after:
        message, hint = "names the stages, and start_at or stop_after bounds them, too", "Give one or the other."
    if message:
        raise RecipeError([Problem("only", only, message, hint)])
    return [name for name in names if name in only]


def decide(stage: Stage, recipe: Recipe, known: dict[str, str], past: PastRuns, *, forced: bool = False) -> Step:
    """Run or skip one stage, given the digests of the artifacts that are known (name -> sha256).

    An ephemeral stage is decided by `build`, since that depends on the stages after it.
    """
    needs = stage.needs(recipe)
    unknown = [name for name in needs if name not in known]
    if unknown:
        return Step(stage.name, stage, "run", f"needs the new {' and '.join(unknown)}")
    covered = past.with_outside(stage, fingerprint_inputs(stage, recipe, {name: known[name] for name in needs}))
    digest, inputs = fingerprint(stage, covered), redact(covered)
    record = past.matching(stage.name, digest)
    if forced:
        return Step(stage.name, stage, "run", "forced", digest, inputs)
    if record is None:
        return Step(stage.name, stage, "run", past.explain(stage.name, inputs), digest, inputs)
    return Step(stage.name, stage, "skip", _origin(record), digest, inputs, record)


def _origin(record: StageRecord) -> str:
    where = f" in {record.shared}" if record.from_store else ""
    return f"unchanged since run {record.origin_run}{where}"


def build(recipe: Recipe, options: RunOptions, past: PastRuns, done: Sequence[StageRecord] = ()) -> Plan:
    """The plan: a step for each selected stage, in order, without those that `done` holds the records of.

    The engine plans again after each stage that ran, since only then the digests of what it made are known.
    Raises UsageError when a selected stage needs an artifact of one that is left out and has no cached result;
    RunnerError where stages were done before.
    """
    chosen = select(recipe, options)
    finished = {record.name: record for record in done}
    known: dict[str, str] = {}
    steps: list[Step] = []
    borrowed: list[StageRecord] = []
    left_out: dict[str, Step] = {}
    for name in recipe.pipeline:
        stage = load_stage(name)
        if name in finished:
            known |= digests(stage, finished[name])
            continue
        step = decide(stage, recipe, known, past, forced=name in options.force)
        if name in chosen:
            _require(step, recipe, left_out, RunnerError if finished else UsageError)
            steps.append(step)
        elif step.record is None:
            left_out |= dict.fromkeys(stage.provides, step)
        else:
            borrowed.append(step.record)
        if step.record is not None:
            known |= digests(stage, step.record)
        elif stage.ephemeral and step.fingerprint:
            known |= dict.fromkeys(stage.provides, step.fingerprint)
    ran = any(record.status == "done" for record in done)
    return Plan(_settle(steps, recipe, options, past, ran), borrowed)


def _require(step: Step, recipe: Recipe, left_out: dict[str, Step], kind: type[RunnerError]) -> None:
    for name in step.stage.needs(recipe):
        if name in left_out:
            provider = left_out[name]
            raise kind(
                f"stage {step.name} needs {name!r} of stage {provider.name}, which is left out and has no result to "
                f"reuse ({provider.why})",
                f"Include {provider.name}, or run the whole pipeline.",
            )


def digests(stage: Stage, record: StageRecord) -> dict[str, str]:
    """Digests by which later stages know what this one made; an ephemeral stage's is its fingerprint."""
    if stage.ephemeral:
        return dict.fromkeys(stage.provides, record.fingerprint)
    return {artifact.name: artifact.sha256 for artifact in record.artifacts}


def _settle(steps: Sequence[Step], recipe: Recipe, options: RunOptions, past: PastRuns, ran: bool) -> list[Step]:
    """From the last step to the first: verify what a later step will read, and let ephemeral stages follow demand."""
    settled = list(steps)
    wanted: set[str] = set()
    for index in range(len(settled) - 1, -1, -1):
        step = settled[index]
        if step.stage.ephemeral:
            busy = ran or any(other.action == "run" for other in settled[:index])
            step = _settle_ephemeral(step, busy, wanted, recipe, options)
        elif step.record is not None:
            lost = past.broken(step.record, wanted, deleted_artifacts(recipe))
            if lost:
                step = replace(step, action="run", why=lost, record=None)
        if step.action == "run":
            wanted |= set(step.stage.needs(recipe))
        settled[index] = step
    return settled


def _settle_ephemeral(step: Step, busy: bool, wanted: set[str], recipe: Recipe, options: RunOptions) -> Step:
    if step.name in options.force:
        return step
    provides = step.stage.provides
    if not provides:
        return replace(step, action="run" if busy else "skip", why="always" if busy else "nothing ran", record=None)
    if wanted & set(provides):
        return replace(step, action="run", why="a later stage needs it", record=None)
    if isinstance(step.stage, KeepsAlive) and (key := step.stage.keep_alive(recipe)):
        return replace(step, action="run", why=key, record=None)
    if step.action == "skip":
        return replace(step, why="nothing that runs needs it")
    return step
