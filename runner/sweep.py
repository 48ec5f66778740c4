"""`-m`: Hydra's sweeper runs the pipeline once for each combination, after all of them have been checked.

A sweep has a folder `<storage.root>/sweeps/<id>/` with sweep.json, report.html and report.md. The same command again
continues one that was interrupted or had failures: jobs that are done are not run again, and within a job the run goes
on where it was. A job that fails does not stop the others.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from runner.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_STAGE_FAILED, Problem, RecipeError, RunnerError
from runner.report import Report
from runner.resolve import RECIPES_DIR, Composed, accept_new_keys, compose
from runner.sweep_state import Job, Sweep, open_sweep, outcome

_GRID = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


def sweep(overrides: list[str], config_dir: Path | None, command: str) -> int:
    """Run every job of the sweep. Returns 1 when one failed, 3 when the gate refused all, else 0.

    Raises RecipeError with the problems of all jobs before the first one starts.
    """
    from runner.cli import load

    jobs = combinations(overrides)
    problems: list[Problem] = []
    recipes = []
    for job in jobs:
        try:
            recipes.append(load(compose(job, config_dir))[0])
        except RecipeError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise RecipeError(problems)
    root = Path(recipes[0].storage.root).expanduser().resolve()
    state, folder = open_sweep(root, [*overrides, str(config_dir or "")], command)
    state.recipe, state.objective = recipes[0].name, recipes[0].evaluate.objective
    try:
        _hand_to_hydra(overrides, config_dir, folder, lambda config: _job(config, state, folder))
    except KeyboardInterrupt:
        _finish(state, folder, Report())
        Report().say(f"interrupted; continue with: {command}")
        return EXIT_INTERRUPTED
    except SystemExit as stopped:  # Hydra has said why; Optuna ends so when no trial was a success
        state.status = "failed"
        _finish(state, folder, Report())
        return state.exit_code() or (EXIT_STAGE_FAILED if stopped.code else EXIT_DONE)
    state.status = "failed" if any(not job.finished for job in state.jobs) else "done"
    _finish(state, folder, Report())
    return state.exit_code()


def combinations(overrides: list[str]) -> list[list[str]]:
    """Every job's overrides: the product of all choice and range sweeps (`a=1,2`, `a=choice(1,2)`, `a=range(1,4)`).

    A sweep that has no finite list of values (`interval`) is left to its sweeper; it is checked with its first value.
    """
    axes = []
    for override in OverridesParser.create().parse_overrides(overrides):
        key = override.get_key_element()
        if not override.is_sweep_override():
            axes.append([override.input_line or ""])
        elif override.is_discrete_sweep():
            axes.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            axes.append([f"{key}={override.value().start}"])
    return [list(job) for job in product(*axes)]


def _hand_to_hydra(
    overrides: list[str], config_dir: Path | None, folder: Path, job: Callable[[DictConfig], float]
) -> None:
    groups = {path.name for path in RECIPES_DIR.iterdir() if path.is_dir()}
    argv = [*accept_new_keys(overrides, groups), f"hydra.sweep.dir={folder}", "--multirun"]
    if config_dir is not None:
        argv.append(f"--config-dir={config_dir.resolve()}")
    saved, sys.argv = sys.argv, ["runner", *argv]
    try:
        hydra.main(config_path=str(RECIPES_DIR), config_name="config", version_base="1.3")(job)()
    finally:
        sys.argv = saved


def _job(config: DictConfig, state: Sweep, folder: Path) -> float:
    """Run one job unless it is done. Returns its objective; without one nan to the grid, an error to other sweepers.

    Raises KeyboardInterrupt when the run was interrupted, which ends the sweep.
    """
    from hydra.core.hydra_config import HydraConfig

    overrides = [text.lstrip("+") for text in HydraConfig.get().overrides.task]
    job, report = state.job(overrides), Report()
    if job.finished and job.value is not None:
        report.say(f"job {job.number} was done before: {' '.join(overrides)}")
        return job.value
    report.say(f"job {job.number}: {' '.join(overrides)}")
    job.status, job.error = "running", ""
    state.save(folder)
    _run_job(config, overrides, job, state.objective)
    _finish(state, folder, None)
    if job.value is None:
        if HydraConfig.get().sweeper._target_ == _GRID:
            return float("nan")
        raise RunnerError(f"job {job.number} has no {state.objective}: {job.error}")
    return job.value


def _run_job(config: DictConfig, overrides: list[str], job: Job, objective: str) -> None:
    from runner.cli import load
    from runner.engine import run

    values: Any = OmegaConf.to_container(config, resolve=True)
    command = " ".join(["python -m runner", *overrides])
    try:
        recipe, options = load(Composed(values, [], overrides=overrides))
        code, summary = run(recipe, options, command, Report())
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
    home = Path(recipe.storage.root).expanduser().resolve() / recipe.name
    outcome(job, code, summary, objective, home / summary["run_id"])


def _finish(state: Sweep, folder: Path, report: Report | None) -> None:
    """Save the state and the pages; with a report, show the table too."""
    state.save(folder)
    try:
        from runner.pages import write_sweep_report

        write_sweep_report(folder)
    except Exception as error:  # a page that cannot be made does not spoil the sweep
        Report().say(f"no report of the sweep: {type(error).__name__}: {error}")
    if report is not None:
        report.sweep(state, folder)
