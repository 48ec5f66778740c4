"""The loop: run the plan's steps in order, commit artifacts first and records second, and undo what was started."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner.cluster.environments.nodes import require_environment
from runner.cluster.session import RaySession
from runner.errors import (
    EXIT_DONE,
    EXIT_GATE_REFUSED,
    EXIT_INTERRUPTED,
    EXIT_STAGE_FAILED,
    RunnerError,
    cause_of,
    os_failure,
)
from runner.pipeline import plan as planning
from runner.pipeline.context import RunContext
from runner.pipeline.engine.interrupts import Interrupted, interruptible, uninterrupted, wait_for_interrupt
from runner.pipeline.engine.progress import ProgressFile
from runner.pipeline.engine.run import Run, Watched, open_run, stage_folder
from runner.pipeline.engine.summary import summarize
from runner.pipeline.events import (
    Observer,
    Observers,
    OutputMoved,
    ResultsWritten,
    RunEnded,
    RunStarted,
    StageFinished,
    StageStarted,
    StaysUp,
    WorkEnded,
)
from runner.pipeline.fingerprint.remote import check_destinations, look_outside
from runner.pipeline.manifest import ORIGINS, Manifest, StageRecord
from runner.pipeline.optional import KeepsAlive, WarmsUp, environment_of, environments_of
from runner.pipeline.registry import load_stage
from runner.pipeline.run_locks import one_run
from runner.pipeline.shared_cache import SharedCache, is_shared
from runner.recipe.schema import Recipe, RunOptions
from runner.storage.artifact import Artifact
from runner.storage.atomic import write_state
from runner.storage.digest import digest_json
from runner.storage.verify import damage


def run(
    recipe: Recipe,
    options: RunOptions,
    command: str,
    observers: Sequence[Observer],
    origins: Mapping[str, str] | None = None,
) -> tuple[int, dict[str, Any]]:
    """Run the recipe. Returns the exit code and the summary (see `runner.pipeline.engine.summary`).

    observers: called with every event. origins: dotted key -> the file or override that set it, kept with the run.
    Raises LockedError when the same recipe is already running, and RunnerError when the plan cannot be made, or the
    folder of the runs cannot be written to. KeyboardInterrupt before the first stage and after the last one.
    """
    try:
        return _run(recipe, options, command, observers, origins)
    except Interrupted:  # before the first stage, or when the results were being described
        raise KeyboardInterrupt from None
    except OSError as error:
        raise os_failure(error, f"storage.root={recipe.storage.root}") from error


def _run(
    recipe: Recipe,
    options: RunOptions,
    command: str,
    observers: Sequence[Observer],
    origins: Mapping[str, str] | None,
) -> tuple[int, dict[str, Any]]:
    root = recipe.storage.runs
    identity = digest_json(recipe.model_dump(mode="json"))
    watched = Watched(Observers(observers))
    with one_run(root, identity, command) as lock, interruptible() as signals:
        shared = SharedCache(recipe, watched.say) if is_shared(recipe) else None
        past = planning.PastRuns(root, shared)
        for remark in past.remarks:
            watched.say(remark)
        past.outside = look_outside(map(load_stage, recipe.pipeline), recipe, watched.say)
        plan = planning.build(recipe, options, past)
        check_destinations((step.stage for step in plan.steps if step.action == "run"), recipe)
        run_ = open_run(recipe, options, command, watched, root, identity)
        run_.lock, run_.signals = lock, signals
        run_.shared, run_.digests = shared, past.digests
        try:
            write_state(run_.folder / ORIGINS, dict(origins or {}))
            run_.notify(RunStarted(recipe, plan.steps, run_.folder))
            code = _run_steps(run_, plan, past)
            summary = summarize(run_.manifest, recipe)
            write_state(run_.folder / "summary.json", summary)
        except OSError as error:  # of its own records; what a stage meets is the stage's failure
            run_.give_up(os_failure(error).message)
            raise
        run_.free_reserve()
        run_.notify(ResultsWritten(recipe, run_.folder))
    run_.notify(RunEnded(summary, run_.folder, run_.command, code))
    return code, summary


def _run_steps(run_: Run, plan: planning.Plan, past: planning.PastRuns) -> int:
    """Run every step; whatever happens, undo what was started and leave Ray. Returns the exit code."""
    ray = RaySession(run_.recipe.cluster, run_.show_progress, run_.end_without_cluster)
    run_.progress = ProgressFile(run_.folder, [step.name for step in plan.steps], lambda: ray.dashboard_url)
    code = EXIT_DONE
    done: list[StageRecord] = []
    try:
        while plan.steps and code == EXIT_DONE:
            step = plan.steps[0]
            for record in plan.borrowed:
                run_.known |= {artifact.name: artifact for artifact in record.artifacts}
            if step.action == "run":
                _warm_up(plan.steps[1:], running_stage=step.name, run_=run_, ray=ray)
            record = _reused(step) if step.action == "skip" else _swept(_execute(step, run_, ray), run_, ray)
            _commit(run_, record)
            _share(run_, step, record)
            code = _verdict(run_, record)
            done.append(record)
            plan = planning.build(run_.recipe, run_.options, past, done)
        if code == EXIT_DONE and (text := _kept_alive(run_)):
            run_.notify(StaysUp(text, run_.folder))
            wait_for_interrupt()
    except Interrupted:
        run_.manifest.status = "interrupted"
        code = EXIT_INTERRUPTED
    finally:
        _close(run_, ray)
    if code == EXIT_DONE:
        ray.remove_logs()  # of a run that failed they may say why
        run_.manifest.status = "done"
    run_.save()
    return code


def _warm_up(later: Sequence[planning.Step], *, running_stage: str, run_: Run, ray: RaySession) -> None:
    """Let stages that come later start what takes long. That it cannot be started now is for their own `run` to say."""
    for step in later:
        if not isinstance(step.stage, WarmsUp) or step.action != "run" or step.name in run_.warmed:
            continue
        run_.capture(step.name)
        try:
            _require_environment(step, run_, ray)
            if what := step.stage.warm_up(_context(step, run_, ray, run_.folder / step.name), running_stage):
                run_.warmed.add(step.name)
                run_.say(f"  {step.name}: {what} is starting while {running_stage} runs")
        except Exception as error:
            run_.say(f"  {step.name}: could not start anything while {running_stage} runs: {cause_of(error)}")


def _kept_alive(run_: Run) -> str:
    """How to use what stays up because the recipe asks for it; "" when nothing does."""
    texts = []
    for stage in (load_stage(name) for name in run_.recipe.pipeline):
        is_there = all(name in run_.known for name in stage.provides)
        if isinstance(stage, KeepsAlive) and stage.keep_alive(run_.recipe) and is_there:
            texts.append(stage.usage(run_.recipe, run_.known))
    return "\n".join(texts)


def _reused(step: planning.Step) -> StageRecord:
    """The earlier record of a skipped step; a step that had nothing to do has none."""
    if step.record is None:
        return StageRecord(name=step.name, status="skipped", note=step.why)
    return step.record.model_copy(update={"status": "skipped", "note": step.why, "wall_s": 0.0})


def _execute(step: planning.Step, run_: Run, ray: RaySession) -> StageRecord:
    """Run one stage and describe what became of it; a failure becomes a record, an interruption is raised again."""
    run_.save()
    run_.capture(step.name)
    run_.notify(StageStarted(step.name))
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
        stage_dir = stage_folder(run_.folder / step.name, step.fingerprint)
        _require_environment(step, run_, ray)
        result = step.stage.run(_context(step, run_, ray, stage_dir))
        artifacts = result.artifacts
        if step.stage.ephemeral:
            artifacts = [artifact.model_copy(update={"sha256": step.fingerprint}) for artifact in artifacts]
        updates: dict[str, Any] = {"artifacts": artifacts, "metrics": result.metrics, "note": result.note}
    except (Interrupted, KeyboardInterrupt):
        _commit(run_, record.model_copy(update={"status": "interrupted", "wall_s": time.monotonic() - begin}))
        raise Interrupted from None
    except Exception as error:
        with suppress(OSError), run_.log(step.name).open("a", encoding="utf-8") as log:  # a full disk
            traceback.print_exc(file=log)
        updates = {"status": "failed", "error": cause_of(error)}
    if run_.signals:  # C code that was running took the exception for its own, or dropped it
        _commit(run_, record.model_copy(update={"status": "interrupted", "wall_s": time.monotonic() - begin}))
        raise Interrupted
    return record.model_copy(update={**updates, "wall_s": time.monotonic() - begin})


def _swept(record: StageRecord, run_: Run, ray: RaySession) -> StageRecord:
    """The record with what the stage has left behind, which is ended. What is deferred is looked at in the end."""
    return record if run_.deferred else record.model_copy(update={"warnings": run_.leaks.sweep(ray.started)})


def _require_environment(step: planning.Step, run_: Run, ray: RaySession) -> None:
    for chosen in environments_of(step.stage, run_.recipe):
        require_environment(ray, run_.recipe.cluster, run_.recipe.resources_of(step.name), chosen)


def _context(step: planning.Step, run_: Run, ray: RaySession, stage_dir: Path) -> RunContext[Any]:
    needs, chosen = step.stage.needs(run_.recipe), environment_of(step.stage, run_.recipe)
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
        say=run_.say,
        manifest_artifacts=lambda: _own_artifacts(run_.manifest),
        environment=chosen.name if chosen else None,
    )


def _at_hand(run_: Run, name: str) -> Artifact:
    """The artifact, fetched first if another machine left it in the store. Raises RunnerError when it is damaged."""
    if run_.shared is not None:
        run_.known[name] = run_.shared.on_this_machine(run_.known[name], run_.folder / "fetched")
    if why := damage(run_.known[name], run_.digests):
        raise RunnerError(why, "Run again: the stage that made it is run again, and repairs or replaces it.")
    return run_.known[name]


def _own_artifacts(manifest: Manifest) -> list[Artifact]:
    """What this run made, also before it was interrupted and continued."""
    own = [record for record in manifest.stages if record.status == "done" or record.origin_run == manifest.run_id]
    return [artifact for record in own for artifact in record.artifacts]


def _commit(run_: Run, record: StageRecord) -> None:
    """Artifacts are in place by now; the record makes them count."""
    run_.manifest.record(record)
    if record.status != "skipped":  # `_execute` and the run's end save reused results
        run_.save()
    if record.status in ("done", "skipped"):
        run_.known |= {artifact.name: artifact for artifact in record.artifacts}
    run_.notify(StageFinished(record, run_.log(record.name)))


def _share(run_: Run, step: planning.Step, record: StageRecord) -> None:
    """Let other machines have the result, too. The record says when that is done, so that it is asked for once."""
    if run_.shared is None or not step.stage.provides or record.status not in ("done", "skipped"):
        return
    shared = run_.shared.share(record, run_.manifest.run_id, without_files=step.stage.ephemeral)
    if shared != record:
        run_.manifest.record(shared)
        run_.save()


def _verdict(run_: Run, record: StageRecord) -> int:
    if record.status == "failed":
        run_.manifest.status = "failed"
        return EXIT_STAGE_FAILED
    if record.gate_refused:
        run_.manifest.status = "gate_refused"
        return EXIT_GATE_REFUSED
    return EXIT_DONE


def _close(run_: Run, ray: RaySession) -> None:
    """Undo what the stages started, and give the terminal back, whatever fails."""
    with uninterrupted():
        try:
            _undo(run_)
            ray.close()
            for left in run_.leaks.sweep(ray.started):
                _report_leak(run_, left)
        finally:
            run_.notify(WorkEnded())
            run_.output.release()
            run_.notify(OutputMoved(run_.output.terminal))


def _report_leak(run_: Run, text: str) -> None:
    """What an interruption has left, and is ended by now, is not a stage's fault: it is for the log."""
    if run_.manifest.status != "interrupted" or run_.output.log is None:
        run_.say(text)
        return
    with suppress(OSError), run_.output.log.open("a", encoding="utf-8") as log:
        log.write(f"{text}\n")


def _undo(run_: Run) -> None:
    """Undo what the stages started, last first; a failure is reported and does not stop the others."""
    for what, undo in reversed(run_.deferred):
        try:
            undo()
        except Exception as error:
            run_.say(f"could not stop {what}: {cause_of(error)}")
            with suppress(OSError):  # the log's disk is full
                traceback.print_exc()
    run_.deferred.clear()
