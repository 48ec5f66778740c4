"""A streamed answer put together from its pieces: text, reasoning, and tool calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stages.data.answer import Answer, call_of


@dataclass
class Received:
    """What has come so far of one answer."""

    content: str = ""
    reasoning: str | None = None
    names: dict[int, str] = field(default_factory=dict)
    arguments: dict[int, str] = field(default_factory=dict)

    def add(self, delta: Any) -> bool:
        """Add a piece (`choices[].delta` of a chunk). Returns whether it holds anything of the answer."""
        reasoning = getattr(delta, "reasoning", None) or getattr(delta, "reasoning_content", None)
        if reasoning:
            self.reasoning = (self.reasoning or "") + reasoning
        self.content += delta.content or ""
        for call in getattr(delta, "tool_calls", None) or ():
            if call.function and call.function.name:
                self.names[call.index] = call.function.name
            text = (call.function and call.function.arguments) or ""
            self.arguments[call.index] = self.arguments.get(call.index, "") + text
        return bool(delta.content or reasoning or getattr(delta, "tool_calls", None))

    def answer(self) -> Answer:
        """The whole answer."""
        calls = [call_of(self.names.get(index, ""), text) for index, text in sorted(self.arguments.items())]
        return Answer(self.content, calls, self.reasoning)
