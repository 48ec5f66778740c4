"""The loop: run the plan's steps in order, commit artifacts first and records second, and undo what was started."""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from runner.cluster.leaks import Leaks
from runner.cluster.session import RaySession
from runner.errors import EXIT_DONE, EXIT_GATE_REFUSED, EXIT_INTERRUPTED, EXIT_STAGE_FAILED, RunnerError
from runner.pipeline import plan as planning
from runner.pipeline.context import RunContext
from runner.pipeline.manifest import MANIFEST, ORIGINS, Manifest, StageRecord
from runner.pipeline.optional import WarmsUp
from runner.pipeline.output import Output
from runner.pipeline.progress import ProgressFile
from runner.pipeline.run_locks import one_run
from runner.pipeline.shared_cache import SharedCache, is_shared
from runner.pipeline.summary import summarize
from runner.recipe.load import redact
from runner.recipe.machine import machine_name
from runner.recipe.schema import Recipe, RunOptions
from runner.report.terminal import Report
from runner.storage import atomic as durable
from runner.storage.artifact import Artifact
from runner.storage.atomic import read_state, write_state, write_text
from runner.storage.digest import digest_json
from runner.storage.lock import Lock


class Interrupted(BaseException):
    """SIGTERM or Ctrl-C arrived."""


@dataclass
class Run:
    """One run of a recipe: its folder, what it has made so far, and what must be undone at its end."""

    recipe: Recipe
    options: RunOptions
    command: str
    report: Report
    manifest: Manifest
    folder: Path
    progress: ProgressFile | None = None
    known: dict[str, Artifact] = field(default_factory=dict)
    deferred: list[tuple[str, Callable[[], None]]] = field(default_factory=list)
    output: Output = field(default_factory=Output)
    shared: SharedCache | None = None
    lock: Lock | None = None
    leaks: Leaks = field(default_factory=Leaks)
    signals: list[int] = field(default_factory=list)
    warmed: set[str] = field(default_factory=set)

    def log(self, stage: str) -> Path:
        return self.folder / "logs" / f"{stage}.log"

    def capture(self, stage: str) -> None:
        """From now on what is printed goes to the stage's log, and the report to the terminal."""
        self.output.capture(self.log(stage))
        self.report.write_to(self.output.terminal)

    def show_progress(self, stage: str, event: dict[str, Any]) -> None:
        """Tell the terminal, and whoever looks from another one."""
        self.report.progress(stage, event)
        if self.progress is not None:
            self.progress.update(stage, event)


def run(
    recipe: Recipe,
    options: RunOptions,
    command: str,
    report: Report,
    origins: Mapping[str, str] | None = None,
) -> tuple[int, dict[str, Any]]:
    """Run the recipe. Returns the exit code and the summary (see `runner.pipeline.summary`).

    origins: dotted key -> the file or override that set it, for the run's report.
    Raises LockedError when the same recipe is already running, and RunnerError when the plan cannot be made.
    """
    root = recipe.storage.runs
    identity = digest_json(recipe.model_dump(mode="json"))
    with one_run(root, identity, command) as lock, _signals() as signals:
        shared = SharedCache(recipe, report.say) if is_shared(recipe) else None
        past = planning.PastRuns(root, shared)
        for remark in past.remarks:
            report.say(remark)
        plan = planning.build(recipe, options, past)
        run_ = open_run(recipe, options, command, report, root, identity)
        run_.lock, run_.signals = lock, signals
        write_state(run_.folder / ORIGINS, dict(origins or {}))
        run_.shared = shared
        report.start(recipe, plan.steps, run_.folder)
        code = _run_steps(run_, plan, past)
        summary = summarize(run_.manifest, recipe)
        write_state(run_.folder / "summary.json", summary)
        _write_pages(run_)
        _track(run_, root)
    report.end(summary, run_.folder, run_.command, code)
    return code, summary


def _write_pages(run_: Run) -> None:
    """report.html and report.md of the run's folder. A run is not worse for a page that cannot be made."""
    try:
        from runner.report.pages import write_report

        write_report(run_.folder)
    except Exception as error:
        run_.report.say(f"no report.html: {_cause(error)}")


def _track(run_: Run, root: Path) -> None:
    """Log the run where the recipe says (`tracking`). A run is not worse for a server that does not answer."""
    if run_.recipe.tracking is None:
        return
    try:
        from runner.report.tracking import track

        run_.report.say(f"logged to {run_.recipe.tracking}: {track(run_.folder, root)}")
    except Exception as error:
        run_.report.say(f"not logged to {run_.recipe.tracking}: {_cause(error)}")


def open_run(recipe: Recipe, options: RunOptions, command: str, report: Report, root: Path, identity: str) -> Run:
    """Continue the newest run of exactly this recipe if it did not finish, else start a new one."""
    home = root / recipe.name
    manifest = _unfinished(home, identity, report.say) if not options.force else None
    if manifest is None:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        manifest = Manifest(run_id=f"{stamp}-{identity[:6]}", recipe=recipe.name, created_at=time.time())
        count = 1
        while (home / manifest.run_id).exists():  # two runs within a second
            count += 1
            manifest.run_id = f"{stamp}-{identity[:6]}-{count}"
    folder = home / manifest.run_id
    manifest.status, manifest.machine = "running", machine_name()
    manifest.save(folder)
    durable.remove_leftovers(folder)
    write_state(folder / "recipe.json", redact(recipe.model_dump(mode="json")))
    write_state(folder / "identity.json", {"recipe_sha256": identity, "command": command})
    _point_latest(root, folder)
    return Run(recipe, options, command, report, manifest, folder)


def _unfinished(home: Path, identity: str, say: Callable[[str], None]) -> Manifest | None:
    """The newest run of the recipe of that digest, if it did not finish. `say` is told of files that are damaged."""
    for folder in sorted((path.parent for path in home.glob(f"*/{MANIFEST}")), reverse=True):
        try:
            same = read_state(folder / "identity.json")["recipe_sha256"] == identity
        except (RunnerError, OSError) as error:
            say(f"{error}; {folder.name} is not continued, though its results are used")
            continue
        if same:
            with suppress(RunnerError, OSError):  # PastRuns has said so
                manifest = Manifest.load(folder)
                return manifest if manifest.status in ("running", "failed", "interrupted") else None
    return None


def _point_latest(root: Path, folder: Path) -> None:
    temporary = root / f".latest-{folder.name}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(folder.relative_to(root), target_is_directory=True)
    durable.move(temporary, root / "latest")


def _run_steps(run_: Run, plan: planning.Plan, past: planning.PastRuns) -> int:
    """Run every step; whatever happens, undo what was started and leave Ray. Returns the exit code."""
    ray = RaySession(run_.recipe.cluster, run_.show_progress)
    run_.progress = ProgressFile(run_.folder, [step.name for step in plan.steps], lambda: ray.dashboard_url)
    code = EXIT_DONE
    done: list[StageRecord] = []
    try:
        while plan.steps and code == EXIT_DONE:
            step = plan.steps[0]
            for record in plan.borrowed:
                run_.known |= {artifact.name: artifact for artifact in record.artifacts}
            if step.action == "run":
                _warm_up(plan.steps[1:], beside=step.name, run_=run_, ray=ray)
            record = _take_over(step) if step.action == "skip" else _swept(_execute(step, run_, ray), run_, ray)
            _commit(run_, record)
            _share(run_, step, record)
            code = _verdict(run_, record)
            done.append(record)
            plan = planning.build(run_.recipe, run_.options, past, done)
        if code == EXIT_DONE and run_.recipe.serve.keep_alive and "endpoint" in run_.known:
            _write_pages(run_)
            _stay_up(run_)
    except Interrupted:
        run_.manifest.status = "interrupted"
        code = EXIT_INTERRUPTED
    finally:
        _close(run_, ray)
    if code == EXIT_DONE:
        ray.remove_logs()  # of a run that failed they may say why
        run_.manifest.status = "done"
    _save(run_)
    return code


def _warm_up(later: Sequence[planning.Step], *, beside: str, run_: Run, ray: RaySession) -> None:
    """Let stages that come later start what takes long. That it cannot be started now is for their own `run` to say."""
    for step in later:
        if not isinstance(step.stage, WarmsUp) or step.action != "run" or step.name in run_.warmed:
            continue
        run_.capture(step.name)
        try:
            if what := step.stage.warm_up(_context(step, run_, ray, run_.folder / step.name), beside):
                run_.warmed.add(step.name)
                run_.report.say(f"  {step.name}: {what} starts beside {beside}")
        except Exception as error:
            run_.report.say(f"  {step.name}: nothing starts beside {beside}: {_cause(error)}")


def _take_over(step: planning.Step) -> StageRecord:
    """The earlier record of a skipped step; a step that had nothing to do has none."""
    if step.record is None:
        return StageRecord(name=step.name, status="skipped", note=step.why)
    return step.record.model_copy(update={"status": "skipped", "note": step.why, "wall_s": 0.0})


def _execute(step: planning.Step, run_: Run, ray: RaySession) -> StageRecord:
    """Run one stage and describe what became of it; a failure becomes a record, an interruption goes on upwards."""
    _save(run_)
    run_.capture(step.name)
    run_.report.stage_started(step.name)
    assert run_.progress is not None
    run_.progress.begin(step.name)
    record = StageRecord(
        name=step.name,
        status="done",
        fingerprint=step.fingerprint,
        inputs=step.inputs,
        started_at=time.time(),
        resources=run_.recipe.resources_of(step.name).model_dump(exclude_defaults=True),
    )
    run_.leaks.begin(ray.started)
    begin = time.monotonic()
    try:
        stage_dir = _stage_dir(run_.folder / step.name, step.fingerprint)
        result = step.stage.run(_context(step, run_, ray, stage_dir))
        artifacts = result.artifacts
        if step.stage.ephemeral:
            artifacts = [artifact.model_copy(update={"sha256": step.fingerprint}) for artifact in artifacts]
        updates: dict[str, Any] = {"artifacts": artifacts, "metrics": result.metrics, "note": result.note}
    except (Interrupted, KeyboardInterrupt):
        _commit(run_, record.model_copy(update={"status": "interrupted", "wall_s": time.monotonic() - begin}))
        raise Interrupted from None
    except Exception as error:
        with run_.log(step.name).open("a", encoding="utf-8") as log:
            traceback.print_exc(file=log)
        updates = {"status": "failed", "error": _cause(error)}
    if run_.signals:  # C code that was running took the exception for its own, or dropped it
        _commit(run_, record.model_copy(update={"status": "interrupted", "wall_s": time.monotonic() - begin}))
        raise Interrupted
    return record.model_copy(update={**updates, "wall_s": time.monotonic() - begin})


def _swept(record: StageRecord, run_: Run, ray: RaySession) -> StageRecord:
    """The record with what the stage has left behind, which is ended. What is deferred is looked at in the end."""
    return record if run_.deferred else record.model_copy(update={"warnings": run_.leaks.sweep(ray.started)})


def _context(step: planning.Step, run_: Run, ray: RaySession, stage_dir: Path) -> RunContext:
    needs = step.stage.needs(run_.recipe)
    return RunContext(
        recipe=run_.recipe,
        stage=step.name,
        run_id=run_.manifest.run_id,
        run_dir=run_.folder,
        stage_dir=stage_dir,
        fingerprint=step.fingerprint,
        inputs={name: _at_hand(run_, name) for name in needs if name in run_.known},
        ray=ray,
        deferred=run_.deferred,
        say=run_.report.say,
        manifest_artifacts=lambda: _own_artifacts(run_.manifest),
    )


def _at_hand(run_: Run, name: str) -> Artifact:
    """The artifact, fetched first if another machine left it in the store."""
    if run_.shared is not None:
        run_.known[name] = run_.shared.on_this_machine(run_.known[name], run_.folder / "fetched")
    return run_.known[name]


def _own_artifacts(manifest: Manifest) -> list[Artifact]:
    """What this run made, also before it was interrupted and continued."""
    own = [record for record in manifest.stages if record.status == "done" or record.origin_run == manifest.run_id]
    return [artifact for record in own for artifact in record.artifacts]


def _stage_dir(folder: Path, fingerprint: str) -> Path:
    """The stage's folder, kept when it holds an attempt with the same fingerprint, else put aside."""
    mark = folder / ".fingerprint"
    if folder.exists() and (not mark.is_file() or mark.read_bytes() != fingerprint.encode()):
        durable.move(folder, folder.with_name(f".{folder.name}-{time.time_ns()}"))
    folder.mkdir(parents=True, exist_ok=True)
    if not mark.is_file():
        write_text(mark, fingerprint)
    return folder


def _commit(run_: Run, record: StageRecord) -> None:
    """Artifacts are in place by now; the record makes them count."""
    run_.manifest.record(record)
    if record.status != "skipped":  # `_execute` and the run's end save what was taken over
        _save(run_)
    if record.status in ("done", "skipped"):
        run_.known |= {artifact.name: artifact for artifact in record.artifacts}
    run_.report.stage_finished(record, run_.log(record.name))


def _share(run_: Run, step: planning.Step, record: StageRecord) -> None:
    """Let other machines have the result, too. The record says when that is done, so that it is asked for once."""
    if run_.shared is None or not step.stage.provides or record.status not in ("done", "skipped"):
        return
    shared = run_.shared.share(record, run_.manifest.run_id, without_files=step.stage.ephemeral)
    if shared != record:
        run_.manifest.record(shared)
        _save(run_)


def _save(run_: Run) -> None:
    """Write the manifest. Raises LockedError when another run may be writing it by now."""
    if run_.lock:
        run_.lock.confirm()
    run_.manifest.save(run_.folder)


def _verdict(run_: Run, record: StageRecord) -> int:
    if record.status == "failed":
        run_.manifest.status = "failed"
        return EXIT_STAGE_FAILED
    if record.metrics.get("gate", {}).get("passed") is False:
        run_.manifest.status = "gate_refused"
        return EXIT_GATE_REFUSED
    return EXIT_DONE


def _cause(error: BaseException) -> str:
    if isinstance(error, RunnerError):
        return f"{error.message}. {error.hint}".strip() if error.hint else error.message
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[-1] if text else 'no message'}"


def _stay_up(run_: Run) -> None:
    run_.report.endpoint_up(run_.known["endpoint"])
    with suppress(Interrupted):
        while True:
            signal.pause()


def _close(run_: Run, ray: RaySession) -> None:
    """Undo what the stages started, last first; one that fails is said and does not stop the others."""
    with _uninterrupted():
        for what, undo in reversed(run_.deferred):
            try:
                undo()
            except Exception as error:
                run_.report.say(f"could not take down {what}: {_cause(error)}")
                traceback.print_exc()
        run_.deferred.clear()
        ray.close()
        for left in run_.leaks.sweep(ray.started):
            run_.report.say(left)
        run_.report.stop()
        run_.output.release()
        run_.report.write_to(run_.output.terminal)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """SIGTERM and Ctrl-C end the run in order, as `Interrupted` in the main thread. Gives the signals that came."""
    seen: list[int] = []

    def interrupt(signum: int, frame: FrameType | None) -> None:
        seen.append(signum)
        raise Interrupted(signum)

    saved = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield seen
    finally:
        for number, handler in saved.items():
            signal.signal(number, handler)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C must not leave half of the cleaning up undone."""
    saved = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in saved.items():
            signal.signal(number, handler)
