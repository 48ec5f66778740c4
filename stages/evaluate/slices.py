"""Parts of the test set that are scored by themselves: which value of a slice each row has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from runner.errors import RunnerError, nearest
from runner.text import count_text
from stages.data.prediction import Prediction
from stages.evaluators.base import offered_slices

LENGTH = "length"
NO_VALUE, OTHERS = "(none)", "(others)"
_MAX_VALUES = 20
_MAX_CHARS = 60
_NUM_BUCKETS = 4


class Slices:
    """The values of each row for the slices that `evaluate.slices` names.

    `length` is the quarter of the rows by the length of the reference; evaluators offer others by the reference, such
    as `function`; any other name is a column of the rows.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._values: dict[str, list[Any]] = {name: [] for name in names}
        self._columns: set[str] = set()
        self._offered = offered_slices()

    def add(self, row: Prediction) -> None:
        """Note a row; they come in the order of their places in the score table."""
        self._columns.update(row.row)
        for name, values in self._values.items():
            values.append(self._value(name, row))

    def labels(self) -> dict[str, list[str]]:
        """For each slice the value of every row; the 20 most frequent values have names, the rest are "(others)".

        Raises RunnerError for a column that no row has.
        """
        found = {}
        for name, values in self._values.items():
            if wrong := unknown_slice(name, self._columns):
                raise RunnerError(f"evaluate.slices: {name!r} {wrong[0]}", wrong[1])
            found[name] = length_buckets(values) if name == LENGTH else _most_frequent(values)
        return found

    def _value(self, name: str, row: Prediction) -> Any:
        if name == LENGTH:
            return len(row.reference)
        if name in self._offered:
            return self._offered[name](row.reference)
        value = row.row.get(name)
        return NO_VALUE if value is None else str(value)[:_MAX_CHARS]


def unknown_slice(name: str, columns: Collection[str]) -> tuple[str, str] | None:
    """Why the rows have no such slice: (message, hint); None when they have. columns: of the rows."""
    offered = [*offered_slices(), LENGTH]
    if name in (*offered, *columns):
        return None
    guess = nearest(name, [*offered, *columns])
    message = f"is not a column of the rows, which have: {', '.join(sorted(columns))}"
    return message, f"Did you mean {guess}?" if guess else f"Name one of these, or {' or '.join(offered)}."


def _most_frequent(values: Sequence[str]) -> list[str]:
    counts = Counter(values)
    kept = set(counts) if len(counts) <= _MAX_VALUES else {value for value, _ in counts.most_common(_MAX_VALUES)}
    return [value if value in kept else OTHERS for value in values]


def length_buckets(lengths: Sequence[int]) -> list[str]:
    """Each length's bucket, `12 to 34 characters`: about a quarter of the rows in each, equal lengths together."""
    ordered = sorted(lengths)
    bounds = sorted({ordered[(len(ordered) * part) // _NUM_BUCKETS - 1] for part in range(1, _NUM_BUCKETS + 1)})
    bounds = bounds if len(ordered) >= _NUM_BUCKETS else ordered[-1:]
    names, low = {}, ordered[0] if ordered else 0
    for bound in bounds:
        names[bound] = f"{low} to {bound} characters" if low < bound else count_text(bound, "character")
        low = bound + 1
    return [names[next(bound for bound in bounds if length <= bound)] for length in lengths]
