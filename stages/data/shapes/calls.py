"""Calls and results of a conversation: each call is of one of the row's tools, each result of one of the calls."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from stages.data.example import BadRowError, Message


def check_calls(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> None:
    """Raise BadRowError naming the first call of a tool that the row does not have, and the first result of no call."""
    names, made, answered = [tool["function"]["name"] for tool in tools], set[str](), set[Any]()
    for message in messages:
        calls = message.get("tool_calls", [])
        for call in calls:
            name = call["function"]["name"]
            if names and name not in names:
                raise BadRowError(
                    f"calls {name!r}, which is none of its tools: {', '.join(names)}", "Name it in tools."
                )
        ids = [call["id"] for call in calls if call.get("id")]
        if twice := next((each for each in ids if ids.count(each) > 1), None):
            raise BadRowError(f"has two calls with the id {twice!r} in one answer", "Give each call an id of its own.")
        made |= set(ids)
        of = message.get("tool_call_id")
        if message["role"] == "tool" and of and made and of not in made:
            raise BadRowError(f"has the result of a call {of!r} that no answer before it made", "Correct tool_call_id.")
        if message["role"] == "tool" and of and of in answered:
            raise BadRowError(f"has two results of the call {of!r}", "Keep one, or correct tool_call_id.")
        answered = ({*answered, of} if message["role"] == "tool" else answered) - set(ids)


def without_filled(messages: list[Message], tools: Sequence[Mapping[str, Any]]) -> list[Message]:
    """The messages without arguments that are null and that the called tool does not have.

    What reads a table by columns and writes it as JSON gives each call the arguments of all tools.
    """
    known = {tool["function"]["name"]: _parameters(tool["function"]) for tool in tools}
    return [_without_filled(message, known) if message.get("tool_calls") else message for message in messages]


def _parameters(function: Mapping[str, Any]) -> Collection[str] | None:
    """Names of a tool's parameters; None where it does not say them in JSON Schema."""
    schema = function.get("parameters")
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    return properties if isinstance(properties, Mapping) and properties else None


def _without_filled(message: Message, known: Mapping[str, Collection[str] | None]) -> Message:
    calls = []
    for call in message["tool_calls"]:
        function = call["function"]
        names = known.get(function["name"])
        kept = {
            name: value for name, value in function["arguments"].items()
            if value is not None or names is None or name in names
        }  # fmt: skip
        calls.append({**call, "function": {**function, "arguments": kept}})
    return {**message, "tool_calls": calls}
