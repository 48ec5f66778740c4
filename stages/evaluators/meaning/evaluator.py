"""Metrics and slices of meaning representations."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stages.evaluators.base import Offered
from stages.evaluators.meaning.representation import function_of

_METRICS = (
    "exact_match_unordered",
    "parse_rate",
    "function_accuracy",
    "attribute_precision",
    "attribute_recall",
    "attribute_f1",
)


class MeaningMatch:
    """Compares functions, attributes and values, in any order."""

    def metrics(self) -> Mapping[str, Offered]:
        return {name: Offered(f"stages.evaluators.meaning.representation:{name}") for name in _METRICS}

    def other_names(self) -> Mapping[str, str]:
        return {}

    def slices(self) -> Mapping[str, Callable[[str], str]]:
        return {"function": function_of}
