"""Rules about metrics, the gate and the objective."""

from __future__ import annotations

from collections.abc import Iterator

from runner.cluster.reach import is_this_machine
from runner.errors import Problem, RunnerError, nearest
from runner.recipe.comparison import HOW_TO_WRITE, parse_comparison
from stages.data.look import first_row
from stages.evaluate.slices import unknown_slice
from stages.evaluators.metrics import known_metrics, missing_package, wrong_arguments
from stages.sections.recipe import Recipe
from stages.serve.other_runs import predictions_of_run

RIGHT = "exact_match"  # what the differences are of when they name no metric
_DELTA, _DELTA_RUN = _DELTAS = ("delta_vs_base", "delta_vs_run")


def metrics_are_known(recipe: Recipe) -> Iterator[Problem]:
    for index, name in enumerate(recipe.evaluate.metrics):
        try:
            known_metrics([name])
        except RunnerError as error:
            message = error.message.removeprefix("evaluate.metrics: ")
            yield Problem(f"evaluate.metrics[{index}]", name, message, error.hint)
            continue
        if is_this_machine(recipe.cluster.address) and (missing := missing_package(name)):
            yield Problem(f"evaluate.metrics[{index}]", name, *missing)


def slices_are_columns(recipe: Recipe) -> Iterator[Problem]:
    """Where the rows can be seen without a network; ingest looks at all others."""
    row = first_row(recipe, "test") or first_row(recipe, "train")
    for index, name in enumerate(recipe.evaluate.slices):
        if row is not None and "evaluate" in recipe.pipeline and (wrong := unknown_slice(name, row)):
            yield Problem(f"evaluate.slices[{index}]", name, *wrong)


def compared_run_is_there(recipe: Recipe) -> Iterator[Problem]:
    """Only for a cluster that is started here: with another one, the run may be sent to a machine that has the runs."""
    name = recipe.evaluate.compare_run
    if name is None or recipe.cluster.address is not None or "evaluate" not in recipe.pipeline:
        return
    try:
        predictions_of_run(recipe, name, "evaluate.compare_run")
    except RunnerError as error:
        yield Problem("evaluate.compare_run", name, error.message.removeprefix("evaluate.compare_run "), error.hint)


def objective_is_computed(recipe: Recipe) -> Iterator[Problem]:
    metrics, objective = recipe.evaluate.metrics, recipe.evaluate.objective
    if objective not in metrics:
        yield Problem("evaluate.objective", objective, *_not_computed(objective, metrics))


def metric_arguments_fit(recipe: Recipe) -> Iterator[Problem]:
    metrics, args = recipe.evaluate.metrics, recipe.evaluate.metric_args
    for name in args:
        if name not in metrics:
            yield Problem(f"evaluate.metric_args.{name}", args[name], *_not_computed(name, metrics))
    for name in metrics:
        if reason := wrong_arguments(name, args.get(name, {})):
            yield Problem(f"evaluate.metric_args.{name}", args.get(name), *reason)


def requirements_can_be_judged(recipe: Recipe) -> Iterator[Problem]:
    for name, text in recipe.evaluate.require.items():
        key = f"evaluate.require.{name}"
        section, _, metric = name.partition(".")
        is_delta = section in _DELTAS
        metric = (metric or RIGHT) if is_delta else name.removeprefix("base.")
        if metric not in (*recipe.evaluate.metrics, *([RIGHT] if is_delta else [])):
            yield Problem(key, text, *_not_computed(metric, recipe.evaluate.metrics, besides=[_DELTA]))
        elif reason := _not_measured(recipe, section):
            yield Problem(key, text, *reason)
        else:
            yield from _comparison(key, text, (-1.0, 1.0) if is_delta else (0.0, 1.0))


def _not_computed(name: str, metrics: list[str], besides: list[str] | None = None) -> tuple[str, str]:
    """What to say of a metric that `evaluate.metrics` does not name: (message, hint)."""
    names = [*metrics, *(besides or [])]
    message = f"names the metric {name!r}, which is not computed; there are: {', '.join(names)}"
    try:
        known_metrics([name])
    except RunnerError:
        guess = nearest(name, names)
        return message, f"Did you mean {guess}?" if guess else "Choose one of these."
    return message, f"Add {name} to evaluate.metrics."


def _not_measured(recipe: Recipe, section: str) -> tuple[str, str] | None:
    """Why a figure about the base model or another run will be missing, and what to do; None when it will be there."""
    if section == _DELTA_RUN:
        named = recipe.evaluate.compare_run is not None
        return None if named else ("needs another run, but evaluate.compare_run names none", "Set it to a run's id.")
    if section not in (_DELTA, "base"):
        return None
    if "publish" not in recipe.pipeline:  # then the base model alone is evaluated
        return (
            ("compares with an adapter, but the pipeline publishes none", "Remove it.") if section == _DELTA else None
        )
    if recipe.evaluate.compare_base:
        return None
    return "needs the base model's score, but evaluate.compare_base is false", "Set evaluate.compare_base=true."


def _comparison(key: str, text: str, limits: tuple[float, float]) -> Iterator[Problem]:
    """limits: the least and the most that the figure can be."""
    comparison = parse_comparison(text)
    if comparison is None:
        yield Problem(key, text, "is not a comparison", HOW_TO_WRITE)
    elif not comparison.can_hold(*limits):
        message = f"can never hold: the figure is between {limits[0]:g} and {limits[1]:g}"
        yield Problem(key, text, message, "Write a share, such as >=0.6 for 60 %.")


RULES = (
    metrics_are_known,
    metric_arguments_fit,
    objective_is_computed,
    requirements_can_be_judged,
    slices_are_columns,
    compared_run_is_there,
)
