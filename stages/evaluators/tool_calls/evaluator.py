"""Metrics that compare the calls of an answer with those expected."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stages.evaluators.base import Offered

_METRICS = ("calls_match", "call_decision", "call_names", "call_arguments", "call_order")


class ToolCalls:
    """Compares names, arguments as JSON, and order."""

    def metrics(self) -> Mapping[str, Offered]:
        return {name: Offered(f"stages.evaluators.tool_calls.calls:{name}", of="calls") for name in _METRICS}

    def other_names(self) -> Mapping[str, str]:
        return {"tool_calls": "calls_match", "tool_accuracy": "calls_match", "tool_names": "call_names"}

    def slices(self) -> Mapping[str, Callable[[str], str]]:
        return {}
