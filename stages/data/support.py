"""What an `Example` may hold that no stage uses yet: such a row is refused by name, never trained without it."""

from __future__ import annotations

from stages.data.example import BadRowError, Example
from stages.data.shapes.pictures import PART


def refuse_unused(example: Example) -> None:
    """Raise BadRowError naming what the row has that no stage uses: audio, video, images of pairs."""
    for message in (*example.messages, *(example.chosen or ()), *(example.rejected or ())):
        content = message["content"]
        if isinstance(content, list):
            kinds = sorted({str(part["type"]) for part in content if part["type"] != "text" and part != PART})
            if kinds:
                raise BadRowError(
                    f"has content parts of the type {', '.join(kinds)}, which are not supported here",
                    "Remove these parts, or the rows that have them.",
                )
