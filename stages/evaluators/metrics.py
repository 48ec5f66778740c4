"""Metrics of predictions against their references, by name.

A metric is one of

- a function (prediction, reference) of one row that returns a number in [0, 1]; the score is the mean over the rows;
- such a function that returns a pair (hits, chances); the score is the sum of hits by the sum of chances;
- a class whose objects have `sums(prediction, reference)`, some numbers of one row, and `score(sums)`, the score in
  [0, 1] of their sums over the rows (a corpus's BLEU is not the mean of its rows);
- a function as the first two of the tool calls, predicted and expected (`CallMetric`).

`evaluate.metric_args.<name>` are keyword arguments of the function or class. Evaluators offer metrics, and packages add
single ones through the entry point group `recipe_runner.metrics`. A row that the engine refused has "" for a
prediction, and its number counts as 0.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Mapping
from functools import cache, partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, entry_points, requires
from typing import Any, cast

from runner.errors import RunnerError
from runner.recipe.machine import installed, pip_install
from stages.evaluators.base import CallMetric, Metric, offered_metrics, other_names

ENTRY_POINT_GROUP = "recipe_runner.metrics"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def known_metrics(names: Iterable[str]) -> dict[str, str]:
    """name -> "module:function" for each name. Raises RunnerError naming the nearest known metric."""
    known = _third_party() | {name: metric.target for name, metric in offered_metrics().items()}
    for name in names:
        if name not in known:
            elsewhere = other_names().get(name.lower())
            near = [elsewhere] if elsewhere else difflib.get_close_matches(name, known, n=1)
            raise RunnerError(
                f"evaluate.metrics: there is no metric {name!r}; there are: {', '.join(sorted(known))}",
                f"Did you mean {near[0]}?" if near else "Remove it, or install the package that adds it.",
            )
    return {name: known[name] for name in names}


def load_metrics(names: Iterable[str], args: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Metric]:
    """The named metrics, with their arguments. args: `evaluate.metric_args`.

    Raises RunnerError for an unknown metric, one that cannot be imported, and arguments that it does not take.
    """
    metrics: dict[str, Metric] = {}
    of_calls = {name for name, metric in offered_metrics().items() if metric.of == "calls"}
    for name, target in known_metrics(names).items():
        module, _, attribute = target.partition(":")
        try:
            found = getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise RunnerError(
                f"the metric {name!r} ({target}) cannot be loaded: {error}",
                "Repair the package that adds it, or remove the metric from evaluate.metrics.",
            ) from error
        made = _with_arguments(name, found, dict((args or {}).get(name, {})))
        metrics[name] = CallMetric(cast(Any, made)) if name in of_calls else made
    return metrics


def missing_package(name: str) -> tuple[str, str] | None:
    """Why a known metric cannot be loaded here: (what, what to do); None when its modules are there. Imports nothing
    heavy."""
    metric = offered_metrics().get(name)
    if metric is None:
        target = known_metrics([name])[name]
        there = installed(target.partition(":")[0])
        return None if there else (f"cannot be loaded: there is no module of {target}", "Install its package again.")
    if metric.library and not installed(metric.library):
        return f"needs {metric.library}, which is not installed here", pip_install(metric.install or metric.library)
    return None


def metric_libraries(names: Iterable[str]) -> list[str]:
    """The distributions that compute the metrics, and what these require: their versions affect the scores."""
    offered, found = offered_metrics(), set[str]()
    adding = {point.name: point.dist.name for point in entry_points(group=ENTRY_POINT_GROUP) if point.dist}
    for name in names:
        own = offered[name].library if name in offered else adding.get(name, "")
        if own:
            found |= {own.replace("_", "-"), *_required_by(own)}
    return sorted(found)


@cache
def _required_by(distribution: str) -> tuple[str, ...]:
    """Distributions that it always needs; none where it is not installed."""
    try:
        wanted = requires(distribution) or []
    except PackageNotFoundError:
        return ()
    return tuple(_NAME.match(each)[0] for each in wanted if "extra ==" not in each)  # type: ignore[index]


def wrong_arguments(name: str, args: Mapping[str, Any]) -> tuple[str, str] | None:
    """Why an evaluator's metric cannot be computed with these arguments: (what, what to do); None when it can.

    None as well for the metrics of other packages, and for one whose library is not here (`missing_package`).
    """
    metric = offered_metrics().get(name)
    if metric is None or missing_package(name):
        return None
    module, _, attribute = metric.target.partition(":")
    try:
        bound = _bind(getattr(import_module(module), attribute), args)
    except TypeError as error:
        return f"the metric {name}: {error}", f"Set evaluate.metric_args.{name} to what it takes."
    return metric.check(bound.arguments) if metric.check else None


def _bind(found: Any, args: Mapping[str, Any]) -> inspect.BoundArguments:
    texts = () if inspect.isclass(found) else ("", "")
    return inspect.signature(found).bind(*texts, **args)


def _with_arguments(name: str, found: Any, args: dict[str, Any]) -> Metric:
    try:
        _bind(found, args)
    except ValueError:  # a function of C that has no signature
        pass
    except TypeError as error:
        raise RunnerError(
            f"evaluate.metric_args.{name}: {error}", f"Give what the metric {name} takes, as a mapping, and no more."
        ) from error
    if inspect.isclass(found):
        found = found(**args)
    elif args:
        found = partial(found, **args)
    return cast(Metric, found)


@cache
def _third_party() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
