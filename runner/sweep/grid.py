"""`-m`: Hydra's sweeper runs the pipeline once for each combination, after all of them have been checked.

Where there is capacity for several jobs, they run concurrently (`runner.sweep.jobs`). A sweeper that learns from
results, such as Optuna, gets them one after another.

A sweep has a folder `<storage.root>/sweeps/<id>/` with sweep.json, report.html and report.md. The same command again
continues one that was interrupted or had failures: jobs that are done are not run again, and within a job the run
resumes where it stopped. A job that fails does not stop the others.
"""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig

from runner.errors import (
    EXIT_DONE,
    EXIT_GATE_REFUSED,
    EXIT_INTERRUPTED,
    EXIT_STAGE_FAILED,
    Problem,
    RecipeError,
    RunnerError,
)
from runner.patches.hydra_classes import GRID_SWEEPER
from runner.pipeline.optional import Objective
from runner.pipeline.plan import PastRuns, build, select
from runner.pipeline.registry import objective_of
from runner.pipeline.run_locks import one_run
from runner.recipe.hydra.compose import accept_new_keys, compose, prepared
from runner.recipe.hydra.folders import RECIPES_DIR, Folders
from runner.recipe.hydra.overrides import COMMAND_LINE, as_text, parsed, readable
from runner.recipe.schema import Recipe, RunOptions
from runner.report.terminal import Report
from runner.storage.atomic import read_state
from runner.storage.digest import digest_json
from runner.sweep.capacity import Machine, Share, cluster_nodes, shares
from runner.sweep.jobs import Planned, Process, run_side_by_side, start_process
from runner.sweep.state import Job, Sweep, open_sweep, outcome
from runner.sweep.view import show_sweep
from runner.text import count_text


def sweep(overrides: list[str], config_dir: Path | None, command: str) -> int:
    """Run every job of the sweep. Returns 1 when one failed, 3 when the gate refused all, else 0.

    Raises RecipeError with the problems of all jobs before the first one starts.
    """
    from runner.pipeline.rules.check import load_recipe

    overrides = readable(overrides)
    jobs = combinations(overrides)
    problems: list[Problem] = []
    loaded: list[tuple[Recipe, RunOptions]] = []
    for job in jobs:
        try:
            loaded.append(load_recipe(compose(job, config_dir)))
        except RecipeError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise RecipeError(problems)
    what = [*_of_the_jobs(overrides), str(config_dir or "")]
    with one_run(loaded[0][0].storage.runs, digest_json(what), command, "the same sweep is already running"):
        return _run_all(overrides, config_dir, command, jobs, loaded, what)


def _run_all(
    overrides: list[str],
    config_dir: Path | None,
    command: str,
    jobs: list[list[str]],
    loaded: list[tuple[Recipe, RunOptions]],
    what: list[str],
) -> int:
    """Run the jobs, checked as they are. what: says which sweep it is. Returns the exit code."""
    parts = _shares(overrides, loaded)
    recipe = loaded[0][0]
    root = recipe.storage.runs
    state, folder = open_sweep(root, what, command)
    state.recipe, state.objective = recipe.name, objective_of(recipe)[0]
    try:
        if len(parts) > 1:
            planned = [_planned(job, each, state, config_dir) for job, each in zip(jobs, loaded, strict=True)]
            _side_by_side(_labelled(planned, state), parts, recipe, state, folder)
        else:
            with prepared(overrides, config_dir) as (texts, folders):
                _hand_to_hydra(texts, folder, lambda config: _job(state, folder, folders))
    except KeyboardInterrupt:
        state.interrupt()
        _finish(state, folder, Report())
        Report().say(f"interrupted; continue with: {command}")
        return EXIT_INTERRUPTED
    except SystemExit as stopped:  # Hydra has printed why; Optuna ends so when no trial was a success
        state.status = "failed"
        _finish(state, folder, Report())
        return state.exit_code() or (EXIT_STAGE_FAILED if stopped.code else EXIT_DONE)
    state.status = "failed" if any(not job.finished for job in state.jobs) else "done"
    _finish(state, folder, Report())
    return state.exit_code()


def _of_the_jobs(overrides: list[str]) -> list[str]:
    """Those that say what a job is, and not how many run at a time."""
    return [text for text in overrides if not text.lstrip("+").startswith("max_parallel_jobs=")]


def _shares(overrides: list[str], loaded: list[tuple[Recipe, RunOptions]]) -> list[Share]:
    """What each job that runs at a time gets; one share when they run one after another, which is then explained."""
    keys = [text.lstrip("+").partition("=")[0] for text in overrides]
    if len(loaded) == 1 or any(key == "sweep" or key.startswith(("hydra/sweeper", "hydra.sweeper")) for key in keys):
        return [Share()]
    recipes, options = [recipe for recipe, _ in loaded], loaded[0][1]
    stages = select(recipes[0], options)
    nodes = [] if options.max_parallel_jobs == 1 else cluster_nodes(recipes[0].cluster)
    parts, why = shares(recipes, stages, options.max_parallel_jobs, Machine.here(), nodes)
    how = f"{len(parts)} at a time" if len(parts) > 1 else ": ".join(filter(None, ("one after another", why)))
    Report().say(f"{count_text(len(loaded), 'job')}, {how}")
    return parts


def _planned(overrides: list[str], loaded: tuple[Recipe, RunOptions], state: Sweep, config_dir: Path | None) -> Planned:
    """The job, with what its first stage would make."""
    recipe, options = loaded
    root = recipe.storage.runs
    own = _of_the_jobs(overrides)
    first = next(iter(build(recipe, options, PastRuns(root)).steps))
    return Planned(
        state.job([text.lstrip("+") for text in own if not text.startswith("hydra")]),
        (*own, *([f"--config-dir={config_dir}"] if config_dir else [])),
        root / recipe.name,
        digest_json(recipe.model_dump(mode="json")),
        first.name,
        first.fingerprint if first.action == "run" else "",
    )


def _labelled(planned: list[Planned], state: Sweep) -> list[Planned]:
    """The jobs, each with the values that not all of them have."""
    labels = {
        job.number: " ".join(f"{key}={value}" for key, value in changed.items())
        for job, changed in zip(state.jobs, state.changes(), strict=True)
    }
    return [replace(each, label=labels[each.job.number]) for each in planned]


def _side_by_side(planned: list[Planned], parts: list[Share], recipe: Recipe, state: Sweep, folder: Path) -> None:
    report = Report()

    def ended(each: Planned, code: int) -> None:
        _record(each, code, recipe, folder)
        report.stop()
        value = "" if each.job.value is None else f"  {state.objective} {each.job.value:.3f}"
        report.say(f"job {each.job.number} {each.label}: {each.job.status}{value} {each.job.error}".rstrip())
        _finish(state, folder, None)

    def start(each: Planned, share: Share) -> Process:
        each.job.status, each.job.error = "running", ""
        state.save(folder)
        return start_process(folder)(each, share)

    waiting = [each for each in planned if not (each.job.finished and each.job.value is not None)]
    for each in planned:
        if each not in waiting:
            report.say(f"job {each.job.number} {each.label} was done before")
    state.save(folder)
    try:
        run_side_by_side(waiting, parts, start, ended, report.jobs)
    finally:
        report.stop()


def _record(each: Planned, code: int, recipe: Recipe, folder: Path) -> None:
    """What became of a job whose process ended with that code."""
    run = each.run_folder()
    try:
        if run is None or code not in (EXIT_DONE, EXIT_STAGE_FAILED, EXIT_GATE_REFUSED):
            raise FileNotFoundError
        summary = read_state(run / "summary.json")
        outcome(each.job, code, summary, _reached(recipe, summary), run)
    except (RunnerError, OSError):
        each.job.status = "failed"
        each.job.error = f"ended with {code}; see {folder / 'jobs' / f'{each.job.number}.log'}"


def _reached(recipe: Recipe, summary: dict[str, Any]) -> Objective:
    """What the run of that summary returns to the sweep."""
    name, stage = objective_of(recipe)
    return stage.reached(summary, name) if stage else Objective()


def combinations(overrides: list[str]) -> list[list[str]]:
    """Every job's overrides: the product of all choice and range sweeps (`a=1,2`, `a=choice(1,2)`, `a=range(1,4)`).

    A sweep that has no finite list of values (`interval`) is left to its sweeper; it is checked with its first value.
    Raises RecipeError for one without values, or with one twice.
    """
    axes = []
    for override in parsed(readable(overrides)):
        key = override.get_key_element()
        if not override.is_sweep_override():
            axes.append([override.input_line or ""])
        elif override.is_discrete_sweep():
            axes.append([f"{key}={value}" for value in _values_of(override)])
        else:
            axes.append([f"{key}={override.value().start}"])
    return [list(job) for job in product(*axes)]


def _values_of(override: Override) -> list[str]:
    """Each value of a choice or a range as an override gives it."""
    text = override.input_line or ""
    key, _, value = text.partition("=")
    hint = f"Write the values with commas between them: {key}=A,B."
    try:
        values = list(map(str, override.sweep_string_iterator()))
    except (HydraException, ValueError) as error:  # of glob, and of a range without steps
        why = "is not for a sweep here" if isinstance(error, HydraException) else f"is not a range: {error}"
        raise RecipeError([Problem(key, value, why, hint, COMMAND_LINE)]) from error
    if not values:
        raise RecipeError([Problem(key, value, "has no value", hint, COMMAND_LINE)])
    plain = [yaml.safe_load(each) for each in values]
    if twice := [each for at, each in enumerate(values) if plain[at] in plain[:at]]:
        raise RecipeError([Problem(key, value, f"has the value {twice[0]} twice", "Write it once.", COMMAND_LINE)])
    return values


def _hand_to_hydra(overrides: list[str], folder: Path, job: Callable[[DictConfig], float]) -> None:
    groups = {path.name for path in RECIPES_DIR.iterdir() if path.is_dir()}
    argv = [*accept_new_keys(overrides, groups), f"hydra.sweep.dir={as_text(str(folder))}", "--multirun"]
    saved, sys.argv = sys.argv, ["runner", *argv]
    try:
        hydra.main(config_path=str(RECIPES_DIR), config_name="config", version_base="1.3")(job)()
    finally:
        sys.argv = saved


def _job(state: Sweep, folder: Path, folders: Folders) -> float:
    """Run one job unless it is done. Returns its objective; without one nan to the grid, an error to other sweepers.

    Raises KeyboardInterrupt when the run was interrupted, which ends the sweep.
    """
    from hydra.core.hydra_config import HydraConfig

    overrides = _of_the_jobs([folders.shown(text.lstrip("+")) for text in HydraConfig.get().overrides.task])
    job, report = state.job(overrides), Report()
    if job.finished and job.value is not None:
        report.say(f"job {job.number} was done before: {' '.join(overrides)}")
        return job.value
    report.say(f"job {job.number}: {' '.join(overrides)}")
    job.status, job.error = "running", ""
    state.save(folder)
    _run_job(overrides, folders.config_dir, job)
    _finish(state, folder, None)
    if job.value is None:
        if HydraConfig.get().sweeper._target_ == GRID_SWEEPER:
            return float("nan")
        raise RunnerError(f"job {job.number} has no {state.objective}: {job.error}")
    return job.value


def _run_job(overrides: list[str], config_dir: Path | None, job: Job) -> None:
    from runner.pipeline.engine import run
    from runner.pipeline.rules.check import load_recipe
    from runner.report.observers import observers

    command = shlex.join(["python", "-m", "runner", "run", *overrides])
    try:
        composed = compose(overrides, config_dir)
        recipe, options = load_recipe(composed)
        code, summary = run(recipe, options, command, observers(Report(of_sweep=True)), composed.origins)
    except RunnerError as error:
        Report(sys.stderr).error(error, error.problems if isinstance(error, RecipeError) else ())
        job.status, job.error = "failed", error.message
        return
    except Exception as error:  # a fault of this program must not cost the other jobs
        traceback.print_exc()
        job.status, job.error = "failed", f"{type(error).__name__}: {error}"
        return
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    home = recipe.storage.runs / recipe.name
    outcome(job, code, summary, _reached(recipe, summary), home / summary["run_id"])


def _finish(state: Sweep, folder: Path, report: Report | None) -> None:
    """Save the state and the pages; with a report, show the table too."""
    state.save(folder)
    try:
        from runner.sweep.page import write_sweep_report

        write_sweep_report(folder)
    except Exception as error:  # a page that cannot be made does not spoil the sweep
        Report().say(f"no report of the sweep: {type(error).__name__}: {error}")
    if report is not None:
        show_sweep(report, state, folder)
