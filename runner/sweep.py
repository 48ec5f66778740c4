"""`-m`: Hydra's sweeper runs the pipeline once for each combination, after all of them have been checked."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from runner.errors import EXIT_DONE, Problem, RecipeError, RunnerError
from runner.report import Report
from runner.resolve import RECIPES_DIR, Composed, accept_new_keys, compose


def sweep(overrides: list[str], config_dir: Path | None) -> int:
    """Run every job of the sweep. Returns the highest exit code of its jobs.

    Raises RecipeError with the problems of all jobs before the first one starts.
    """
    from runner.cli import load

    jobs = combinations(overrides)
    problems: list[Problem] = []
    for job in jobs:
        try:
            load(compose(job, config_dir))
        except RecipeError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise RecipeError(problems)
    return _hand_to_hydra(overrides, config_dir)


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


def _hand_to_hydra(overrides: list[str], config_dir: Path | None) -> int:
    codes: list[int] = []

    def job(config: DictConfig) -> float:
        code, objective = _job(config)
        codes.append(code)
        return objective

    groups = {path.name for path in RECIPES_DIR.iterdir() if path.is_dir()}
    argv = [*accept_new_keys(overrides, groups), "--multirun"]
    if config_dir is not None:
        argv.append(f"--config-dir={config_dir.resolve()}")
    saved, sys.argv = sys.argv, ["runner", *argv]
    try:
        hydra.main(config_path=str(RECIPES_DIR), config_name="config", version_base="1.3")(job)()
    finally:
        sys.argv = saved
    return max(codes, default=EXIT_DONE)


def _job(config: DictConfig) -> tuple[int, float]:
    from hydra.core.hydra_config import HydraConfig

    from runner.cli import load
    from runner.engine import run

    values: Any = OmegaConf.to_container(config, resolve=True)
    overrides = list(HydraConfig.get().overrides.task)
    recipe, options = load(Composed(values, [], overrides=overrides))
    command = " ".join(["python -m runner", *(text.lstrip("+") for text in overrides)])
    try:
        code, summary = run(recipe, options, command, Report())
    except RunnerError as error:
        Report(sys.stderr).error(error)
        return error.exit_code, float("nan")
    score = summary["scores"].get("tuned", {}).get(recipe.evaluate.objective)
    return code, float("nan") if score is None else float(score)
