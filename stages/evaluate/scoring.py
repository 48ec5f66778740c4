"""The table of what each metric says of each row and variant, and the scores, intervals and tests made of it.

Rows of different variants are joined by id, whatever order they come in. A row takes about 4 bytes for each metric and
variant; the texts are not kept.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stages.data.prediction import Prediction
from stages.evaluate.significance import (
    bootstrap_p_value,
    mcnemar_exact,
    percentile_interval,
    resampled_sums,
    wilson_interval,
)
from stages.evaluators.base import CorpusMetric, Metric, judged
from stages.evaluators.metrics import load_metrics

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RIGHT = "exact_match"


@dataclass
class Column:
    """What one metric says of one variant's rows, in the order in which they came.

    width: numbers of a row: 1 for a mean, 2 for a ratio's hits and chances, more for a corpus metric.
    binary: every row is right or wrong, so that the score is a proportion.
    """

    metric: Metric
    width: int = 1
    values: array[float] = field(default_factory=lambda: array("f"))
    binary: bool = True

    def add(self, row: Prediction) -> None:
        """Judge a row. Where the engine refused it, a plain number is 0."""
        numbers: Sequence[float]
        if isinstance(self.metric, CorpusMetric):
            numbers = self.metric.sums(row.prediction, row.reference)
        else:
            found = judged(self.metric, row)
            assert found is not None, "only a corpus metric judges no single row"
            numbers = found if isinstance(found, tuple) else (0.0 if row.error is not None else float(found),)
        self.width = len(numbers)
        self.binary = self.binary and len(numbers) == 1 and numbers[0] in (0.0, 1.0)
        self.values.extend(numbers)

    def sums(self, places: Sequence[int], num_places: int) -> Floats:
        """The numbers as (places x width): the row that came k-th at places[k], 0 where none came.

        A mean becomes a ratio: every row has one chance.
        """
        import numpy as np

        own = np.asarray(self.values).reshape(-1, self.width)
        found = np.zeros((num_places, max(self.width, 2)))
        found[np.asarray(places)] = np.column_stack([own, np.ones(len(own))]) if self.width == 1 else own
        return found

    def score(self, sums: Floats) -> Floats:
        """Scores of summed rows: (samples x width) in, (samples,) out. 0 where there was no chance."""
        import numpy as np

        if isinstance(self.metric, CorpusMetric):
            return np.array([self.metric.score(each) for each in sums])
        return np.divide(sums[:, 0], sums[:, 1], out=np.zeros(len(sums)), where=sums[:, 1] > 0)


@dataclass
class Variant:
    """One variant's rows: their places in the table, and a column for each metric."""

    columns: dict[str, Column]
    places: array[int] = field(default_factory=lambda: array("q"))
    num_errors: int = 0


@dataclass
class Places:
    """Numbers the rows by id in the order of their first coming; an id is forgotten when all variants have had it."""

    num_variants: int
    count: int = 0
    waiting: dict[str, tuple[int, int]] = field(default_factory=dict)

    def of(self, row_id: str) -> int:
        place, seen = self.waiting.pop(row_id, (self.count, 0))
        self.count += place == self.count
        if seen + 1 < self.num_variants:
            self.waiting[row_id] = (place, seen + 1)
        return place


class ScoreTable:
    """Scores of several variants over the same rows. Exact match is always kept, for the paired test."""

    def __init__(self, metrics: Mapping[str, Metric], variants: Iterable[str], confidence: float) -> None:
        self.names = list(metrics)
        self.confidence = confidence
        functions = {**load_metrics([RIGHT]), **metrics}
        self.variants = {
            name: Variant({metric: Column(function) for metric, function in functions.items()}) for name in variants
        }
        self._places = Places(len(self.variants))

    def add(self, row: Prediction, variant: str) -> tuple[int, bool]:
        """Score a prediction. Returns the row's place in the table and whether the prediction is exactly right."""
        kept, failed = self.variants[variant], row.error is not None
        place = self._places.of(row.id)
        kept.places.append(place)
        kept.num_errors += failed
        for column in kept.columns.values():
            column.add(row)
        return place, kept.columns[RIGHT].values[-1] == 1.0

    def summary(self, variant: str) -> dict[str, Any]:
        """`{n, num_errors, num_wrong, <metric>, <metric>_ci, ...}` over all rows.

        num_errors counts what the engine refused, num_wrong the other rows that are not exactly right. The interval
        is Wilson's where each row is right or wrong, and a bootstrap's for means, ratios and corpus scores.
        """
        kept = self.variants[variant]
        found = self._figures(kept, None, intervals=True)
        right = sum(kept.columns[RIGHT].values)
        count = len(kept.places)
        return {
            "n": count,
            "num_errors": kept.num_errors,
            "num_wrong": count - kept.num_errors - int(right),
            **found,
        }

    def slices(self, label: Sequence[str], variants: Iterable[str]) -> dict[str, dict[str, Any]]:
        """`{value: {<variant>: {n, <metric>, <metric>_ci}}}` of the rows with that label; label[place] is a row's."""
        import numpy as np

        labels = np.array(label, dtype=object)
        found: dict[str, dict[str, Any]] = {}
        for value in label_order(label):
            chosen = labels == value
            found[value] = {
                name: {"n": int(chosen.sum()), **self._figures(self.variants[name], chosen, intervals=False)}
                for name in variants
            }
        return found

    def difference(self, one: str, other: str) -> dict[str, Any]:
        """one - other over the rows that both have: `{n, gained, lost, p_value, <metric>, <metric>_ci, <metric>_p}`.

        gained and lost count rows that only one or only the other got exactly right; p_value is McNemar's exact test
        of them. `<metric>_ci` is the paired bootstrap's, `<metric>_p` McNemar's where each row is right or wrong and
        the paired bootstrap's otherwise. {} when no row is shared.
        """
        import numpy as np

        first, second = self.variants[one], self.variants[other]
        both = np.intersect1d(np.asarray(first.places), np.asarray(second.places))
        if not len(both):
            return {}
        stacked, columns = [], {}
        for name in dict.fromkeys([RIGHT, *self.names]):
            pair = [self._sums(variant, name)[both] for variant in (first, second)]
            columns[name] = pair
            stacked += pair
        samples = resampled_sums(np.column_stack(stacked))
        result: dict[str, Any] = {"n": len(both), **_discordant(*columns[RIGHT])}
        start = 0
        for name, pair in columns.items():
            column, width = first.columns[name], pair[0].shape[1]
            resampled = column.score(samples[:, start : start + width]) - column.score(
                samples[:, start + width : start + 2 * width]
            )
            start += 2 * width
            whole = [float(column.score(each.sum(axis=0, keepdims=True))[0]) for each in pair]
            result[name] = whole[0] - whole[1]
            result[f"{name}_ci"] = list(percentile_interval(resampled, self.confidence))
            binary = column.binary and second.columns[name].binary
            result[f"{name}_p"] = _discordant(*pair)["p_value"] if binary else bootstrap_p_value(resampled)
        return result

    def _sums(self, variant: Variant, name: str) -> Floats:
        return variant.columns[name].sums(variant.places, self._places.count)

    def _figures(self, variant: Variant, chosen: Any, *, intervals: bool) -> dict[str, Any]:
        """Score and interval of each metric over the chosen places (None: all of the variant's rows)."""
        import numpy as np

        places = np.asarray(variant.places)
        rows = places if chosen is None else places[chosen[places]]
        sums = {name: self._sums(variant, name)[rows] for name in self.names}
        graded = [name for name in self.names if not variant.columns[name].binary]
        samples: Any = None
        if intervals and graded and len(rows):
            samples = resampled_sums(np.column_stack([sums[name] for name in graded]))
        figures: dict[str, Any] = {}
        start = 0
        for name in self.names:
            column, own = variant.columns[name], sums[name]
            figures[name] = float(column.score(own.sum(axis=0, keepdims=True))[0])
            if column.binary:
                figures[f"{name}_ci"] = list(wilson_interval(float(own[:, 0].sum()), len(rows), self.confidence))
            elif samples is not None:
                estimates = column.score(samples[:, start : start + own.shape[1]])
                figures[f"{name}_ci"] = list(percentile_interval(estimates, self.confidence))
                start += own.shape[1]
        return figures


def label_order(label: Sequence[str]) -> list[str]:
    """The different labels, in the natural order of the numbers they begin with, then by text."""
    return sorted(set(label), key=lambda text: (int(re.match(r"\d{0,15}", text)[0] or -1), text))  # type: ignore[index]


def _discordant(one: Floats, other: Floats) -> dict[str, Any]:
    gained = int(((one[:, 0] == 1) & (other[:, 0] != 1)).sum())
    lost = int(((other[:, 0] == 1) & (one[:, 0] != 1)).sum())
    return {"gained": gained, "lost": lost, "p_value": mcnemar_exact(gained, lost)}
