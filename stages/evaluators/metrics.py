"""Metrics of predictions against their references, by name.

A metric is one of

- a function (prediction, reference) of one row that returns a number in [0, 1]; the score is the mean over the rows;
- such a function that returns a pair (hits, chances); the score is the sum of hits by the sum of chances;
- a class whose objects have `sums(prediction, reference)`, some numbers of one row, and `score(sums)`, the score in
  [0, 1] of their sums over the rows (a corpus's BLEU is no mean of its rows).

`evaluate.metric_args.<name>` are keyword arguments of the function or class. Packages add theirs through the entry
point group `recipe_runner.metrics`. A row that the engine refused has "" for a prediction, and its number counts as 0.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any, Protocol, cast, runtime_checkable

from runner.errors import RunnerError

ENTRY_POINT_GROUP = "recipe_runner.metrics"


@runtime_checkable
class CorpusMetric(Protocol):
    """A score of sums over the rows that is neither a mean nor a ratio."""

    def sums(self, prediction: str, reference: str) -> Sequence[float]:
        """Numbers of one row, as many for every row."""

    def score(self, sums: Sequence[float]) -> float:
        """The score in [0, 1] of the rows' summed numbers."""


Metric = Callable[[str, str], float | tuple[float, float]] | CorpusMetric

_MEANING, _TEXT = "stages.evaluators.meaning.representation", "stages.evaluators.text_match.text_metrics"
# What other tools call a metric that there is here.
_ELSEWHERE = {name: ["exact_match"] for name in ("accuracy", "acc", "em", "exact")}
BUILTIN = {
    "exact_match": "stages.evaluators.metrics:exact_match",
    "exact_match_normalized": "stages.evaluators.metrics:exact_match_normalized",
    "exact_match_unordered": f"{_MEANING}:exact_match_unordered",
    "parse_rate": f"{_MEANING}:parse_rate",
    "function_accuracy": f"{_MEANING}:function_accuracy",
    "attribute_precision": f"{_MEANING}:attribute_precision",
    "attribute_recall": f"{_MEANING}:attribute_recall",
    "attribute_f1": f"{_MEANING}:attribute_f1",
    "rouge": f"{_TEXT}:rouge",
    "bleu": f"{_TEXT}:Bleu",
    "regex": f"{_TEXT}:regex",
    "json_schema": f"{_TEXT}:json_schema",
}
# The module that a metric needs beside this package.
NEEDS = {"rouge": "rouge_score", "bleu": "sacrebleu", "json_schema": "jsonschema"}


def exact_match(prediction: str, reference: str) -> float:
    """1 when the texts are the same, character for character."""
    return float(prediction == reference)


def exact_match_normalized(prediction: str, reference: str) -> float:
    """1 when the texts are the same once runs of white space are one space and the ends are trimmed."""
    return float(prediction.split() == reference.split())


def known_metrics(names: Iterable[str]) -> dict[str, str]:
    """name -> "module:function" for each name. Raises RunnerError naming the nearest known metric."""
    known = _third_party() | BUILTIN
    for name in names:
        if name not in known:
            near = _ELSEWHERE.get(name.lower(), []) or difflib.get_close_matches(name, known, n=1)
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
    for name, target in known_metrics(names).items():
        module, _, attribute = target.partition(":")
        try:
            found = getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise RunnerError(
                f"the metric {name!r} ({target}) cannot be loaded: {error}",
                "Mend the package that adds it, or remove the metric from evaluate.metrics.",
            ) from error
        metrics[name] = _with_arguments(name, found, dict((args or {}).get(name, {})))
    return metrics


def wrong_arguments(name: str, args: Mapping[str, Any]) -> tuple[str, str] | None:
    """Why a built-in metric cannot be computed with these arguments: (what, what to do), or None when it can.

    Light: the libraries behind a metric are looked for and not imported.
    """
    module, _, attribute = BUILTIN[name].partition(":")
    library = NEEDS.get(name)
    if library and find_spec(library) is None:
        return f"the metric {name} needs {library}, which is not installed", "Install this package's extra `metrics`."
    try:
        bound = _bind(getattr(import_module(module), attribute), args)
    except TypeError as error:
        return f"the metric {name}: {error}", f"Set evaluate.metric_args.{name} to what it takes."
    if name == "regex":
        try:
            re.compile(bound.arguments["pattern"])
        except (re.error, TypeError) as error:
            return f"the pattern is no regular expression: {error}", "Mend evaluate.metric_args.regex.pattern."
    return None


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
