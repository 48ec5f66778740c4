"""What an `Example` may hold that no stage uses yet: such a row is refused by name, never trained without it."""

from __future__ import annotations

from stages.data.example import BadRowError, Example, Message

UNUSED = ("tool_calls", "tool_call_id")
"""Keys of messages that no trainer and no engine is given."""
_WORDS = {
    "tool_calls": "tool calls",
    "tool_call_id": "tool results",
}


def refuse_unused(example: Example) -> None:
    """Raise BadRowError naming what the row has that no stage uses."""
    if example.images:
        raise BadRowError("has images: images are not supported", "Remove the images, or the rows that have them.")
    if example.tools:
        raise BadRowError("has tools: tools are not supported", "Remove the column, or the rows that have it.")
    for message in (*example.messages, *(example.chosen or ()), *(example.rejected or ())):
        _refuse(message)


def _refuse(message: Message) -> None:
    content = message["content"]
    if isinstance(content, list):
        kinds = sorted({str(part["type"]) for part in content if part["type"] != "text"})
        raise BadRowError(f"has content parts of the type {', '.join(kinds)}: images and audio are not supported")
    if message["role"] == "tool":
        raise BadRowError("has messages of the role tool: tool results are not supported")
    for key in UNUSED:
        if key in message:
            raise BadRowError(f"has messages with {key}: {_WORDS[key]} are not supported")
