"""What an `Example` may hold that no stage uses yet: such a row is refused by name, never trained without it."""

from __future__ import annotations

from stages.data.example import BadRowError, Example


def refuse_unused(example: Example) -> None:
    """Raise BadRowError naming what the row has that no stage uses: images, audio and video."""
    if example.images:
        raise BadRowError("has images: images are not supported", "Remove the images, or the rows that have them.")
    for message in (*example.messages, *(example.chosen or ()), *(example.rejected or ())):
        content = message["content"]
        if isinstance(content, list):
            kinds = sorted({str(part["type"]) for part in content if part["type"] != "text"})
            raise BadRowError(
                f"has content parts of the type {', '.join(kinds)}: images and audio are not supported",
                "Remove these parts, or the rows that have them.",
            )
