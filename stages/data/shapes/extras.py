"""Columns that belong to the conversation, next to its messages: tools and images."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from stages.data.example import BadRowError
from stages.data.messages import kind
from stages.data.shapes.pictures import image_value

_TOOLS, _FUNCTIONS = "tools", "functions"
_IMAGES = ("images", "image")
_OTHER_MEDIA = ("videos", "video", "audios", "audio")
MEDIA = frozenset((*_IMAGES, *_OTHER_MEDIA))
"""Columns of images, audio and video."""
PLACEHOLDERS = ("<image>", "<video>", "<audio>")
"""What stands in a text for an image, video or audio of such a column."""


def tools_of(row: Mapping[str, Any], used: Collection[str]) -> list[dict[str, Any]]:
    """The tools of the row, in OpenAI's form. Raises BadRowError when they are not a list of functions."""
    name = next((name for name in (_TOOLS, _FUNCTIONS) if row.get(name) and name not in used), None)
    if name is None:
        return []
    tools = row[name]
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except ValueError:
            raise BadRowError(f"column {name!r} is text that is not JSON, not a list of tools") from None
        if tools is None:
            return []
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        entry = (
            next((each for each in tools if not isinstance(each, Mapping)), None) if isinstance(tools, list) else None
        )
        what = f"a list of which one entry is {kind(entry)}" if entry is not None else kind(tools)
        raise BadRowError(f"column {name!r} is {what}, not a list of tools")
    made = [dict(tool) if "function" in tool else {"type": "function", "function": dict(tool)} for tool in tools]
    for tool in made:
        if not isinstance(tool["function"], Mapping) or not isinstance(tool["function"].get("name"), str):
            raise BadRowError(f"column {name!r} has a tool without a function's name")
    return made


def images_of(row: Mapping[str, Any], used: Collection[str]) -> list[str | bytes]:
    """The images of the row: paths, URLs, base64, data URIs or bytes."""
    for name in _OTHER_MEDIA:
        if row.get(name) and name not in used:
            raise BadRowError(f"has the column {name!r}: audio and video are not supported")
    column = next((name for name in _IMAGES if row.get(name) and name not in used), None)
    if column is None:
        return []
    value = row[column]
    return [image_value(each, f"column {column!r}") for each in (value if isinstance(value, list) else [value])]


def without_media(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with how many images a column has in place of them."""
    return {
        name: f"({len(value) if isinstance(value, list) else 1} images)" if name in _IMAGES and value else value
        for name, value in row.items()
    }
