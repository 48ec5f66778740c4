"""Comparisons with a number such as `>=0.85`: the one grammar that the checks and the gate share."""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass

_OPERATORS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "==": operator.eq}
_COMPARISON = re.compile(r"\s*(>=|<=|==|>|<)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")
HOW_TO_WRITE = 'Write one such as ">=0.6" (>=, >, <=, <, ==).'


@dataclass(frozen=True)
class Comparison:
    """`sign` is one of >=, >, <=, <, ==; `limit` is the figure to compare with."""

    sign: str
    limit: float

    def __str__(self) -> str:
        return f"{self.sign} {self.limit:g}"

    def holds(self, value: float) -> bool:
        return bool(_OPERATORS[self.sign](value, self.limit))

    def can_hold(self, low: float, high: float) -> bool:
        """Whether any value from low to high (both included) would satisfy it."""
        impossible = {
            ">=": self.limit > high,
            ">": self.limit >= high,
            "<=": self.limit < low,
            "<": self.limit <= low,
            "==": not low <= self.limit <= high,
        }
        return not impossible[self.sign]


def parse_comparison(text: str) -> Comparison | None:
    """The comparison that the text says, or None when it is none."""
    match = _COMPARISON.fullmatch(text)
    return Comparison(match[1], float(match[2])) if match else None
