"""Metrics of predictions against their references, by name, and the statistics around them.

A metric is a function (prediction, reference) of one row. It returns a number in [0, 1], whose mean over the rows is
the score, or a pair (hits, chances), whose sums make the score hits / chances. Packages add theirs through the entry
point group `recipe_runner.metrics`. A row that the engine refused has "" for a prediction, and its number counts as 0.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from statistics import NormalDist

from runner.errors import RunnerError

ENTRY_POINT_GROUP = "recipe_runner.metrics"
Metric = Callable[[str, str], float | tuple[float, float]]

_MEANING = "stages.meaning"
BUILTIN = {
    "exact_match": "stages.metrics:exact_match",
    "exact_match_normalized": "stages.metrics:exact_match_normalized",
    "exact_match_unordered": f"{_MEANING}:exact_match_unordered",
    "parse_rate": f"{_MEANING}:parse_rate",
    "function_accuracy": f"{_MEANING}:function_accuracy",
    "attribute_precision": f"{_MEANING}:attribute_precision",
    "attribute_recall": f"{_MEANING}:attribute_recall",
    "attribute_f1": f"{_MEANING}:attribute_f1",
}


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
            near = difflib.get_close_matches(name, known, n=1)
            raise RunnerError(
                f"evaluate.metrics: there is no metric {name!r}; there are: {', '.join(sorted(known))}",
                f"Did you mean {near[0]}?" if near else "Remove it, or install the package that adds it.",
            )
    return {name: known[name] for name in names}


def load_metrics(names: Iterable[str]) -> dict[str, Metric]:
    """The functions of the named metrics. Raises RunnerError for an unknown one, and one that cannot be imported."""
    functions = {}
    for name, target in known_metrics(names).items():
        module, _, function = target.partition(":")
        try:
            functions[name] = getattr(import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise RunnerError(
                f"the metric {name!r} ({target}) cannot be loaded: {error}",
                "Mend the package that adds it, or remove the metric from evaluate.metrics.",
            ) from error
    return functions


@cache
def _third_party() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}


def wilson_interval(successes: float, count: int, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson, 1927): (low, high); (0, 1) when nothing was counted."""
    if count == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, spread = successes / count, z * z / count
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided p-value of McNemar's exact test: the binomial chance of so uneven a split of the discordant pairs."""
    pairs = gained + lost
    if pairs == 0:
        return 1.0
    tail = sum(math.comb(pairs, k) for k in range(min(gained, lost) + 1))
    chance: float = 2 * tail / 2**pairs  # of integers: as a float, 2**-pairs is 0 from 1,075 pairs on
    return min(1.0, chance)
