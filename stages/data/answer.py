"""What a model answers: a text, tool calls, and the reasoning before them; and the one text that stands for both."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict


class Call(TypedDict):
    """A tool call. arguments: the JSON value that the answer has for them; text where it is not JSON."""

    name: str
    arguments: Any


@dataclass(frozen=True)
class Answer:
    """An answer as a client of the endpoint receives it. reasoning: None where no reasoning was told apart."""

    content: str
    calls: list[Call] = field(default_factory=list)
    reasoning: str | None = None

    @property
    def text(self) -> str:
        """The answer as it is compared and shown: see `answer_text`."""
        content = self.content.lstrip() if self.reasoning is not None else self.content
        return answer_text(content, self.calls)


def answer_text(content: str, calls: Sequence[Call]) -> str:
    """The content, and each call on a line of its own, as JSON with sorted keys; white space around the content of an
    answer with calls belongs to the template."""
    if not calls:
        return content
    lines = [content.strip()] if content.strip() else []
    return "\n".join([*lines, *(f"<tool_call>{_json(call)}</tool_call>" for call in calls)])


def _json(call: Call) -> str:
    return json.dumps({"name": call["name"], "arguments": call["arguments"]}, ensure_ascii=False, sort_keys=True)


def calls_of(message: Mapping[str, Any]) -> list[Call]:
    """The calls of a message in OpenAI's form."""
    functions = [call.get("function", call) for call in message.get("tool_calls") or []]
    return [call_of(function["name"], function.get("arguments")) for function in functions]


def call_of(name: str, arguments: Any) -> Call:
    """A call whose arguments may be JSON text."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError:
            return {"name": name, "arguments": arguments}
    return {"name": name, "arguments": {} if arguments is None else arguments}
