"""Rules about metrics, the gate and the objective."""

from __future__ import annotations

import re
from collections.abc import Iterator

from runner.errors import Problem, RunnerError, nearest
from runner.schema import Recipe
from stages.metrics import known_metrics

_COMPARISON = re.compile(r"\s*(>=|<=|==|>|<)\s*([-+0-9.eE]+)\s*")
_DELTA = "delta_vs_base"


def metrics_are_known(recipe: Recipe) -> Iterator[Problem]:
    for index, name in enumerate(recipe.evaluate.metrics):
        try:
            known_metrics([name])
        except RunnerError as error:
            message = error.message.removeprefix("evaluate.metrics: ")
            yield Problem(f"evaluate.metrics[{index}]", name, message, error.hint)


def objective_is_computed(recipe: Recipe) -> Iterator[Problem]:
    metrics, objective = recipe.evaluate.metrics, recipe.evaluate.objective
    if objective not in metrics:
        yield Problem("evaluate.objective", objective, *_not_computed(objective, metrics))


def requirements_can_be_judged(recipe: Recipe) -> Iterator[Problem]:
    for name, text in recipe.evaluate.require.items():
        key = f"evaluate.require.{name}"
        limits = (-1.0, 1.0) if name == _DELTA else (0.0, 1.0)
        metric = name.removeprefix("base.")
        if name != _DELTA and metric not in recipe.evaluate.metrics:
            yield Problem(key, text, *_not_computed(metric, recipe.evaluate.metrics, besides=[_DELTA]))
        elif reason := _not_measured(recipe, name):
            yield Problem(key, text, *reason)
        else:
            yield from _comparison(key, text, limits)


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


def _not_measured(recipe: Recipe, name: str) -> tuple[str, str] | None:
    """Why a figure about the base model will be missing, and what to do; None when it will be there."""
    if name != _DELTA and not name.startswith("base."):
        return None
    if "publish" not in recipe.pipeline:  # then the base model alone is evaluated
        return ("compares with an adapter, but the pipeline publishes none", "Remove it.") if name == _DELTA else None
    if recipe.evaluate.compare_base:
        return None
    return "needs the base model's score, but evaluate.compare_base is false", "Set evaluate.compare_base=true."


def _comparison(key: str, text: str, limits: tuple[float, float]) -> Iterator[Problem]:
    """limits: the least and the most that the figure can be."""
    match = _COMPARISON.fullmatch(text)
    try:
        sign, limit = (match[1], float(match[2])) if match else ("", 0.0)
    except ValueError:
        sign, limit = "", 0.0
    if not sign:
        yield Problem(key, text, "is not a comparison", 'Write one such as ">=0.6" (>=, >, <=, <, ==).')
        return
    low, high = limits
    impossible = {">=": limit > high, ">": limit >= high, "<=": limit < low, "<": limit <= low}
    if impossible.get(sign, not low <= limit <= high):
        message = f"can never hold: the figure is between {low:g} and {high:g}"
        yield Problem(key, text, message, "Write a share, such as >=0.6 for 60 %.")


RULES = (metrics_are_known, objective_is_computed, requirements_can_be_judged)
