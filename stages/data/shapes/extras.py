"""Columns that belong to the conversation, next to its messages: tools and images."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping
from typing import Any

from stages.data.example import BadRowError
from stages.data.messages import kind

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
        raise BadRowError(f"column {name!r} is {kind(tools)}, not a list of tools")
    made = [dict(tool) if "function" in tool else {"type": "function", "function": dict(tool)} for tool in tools]
    for tool in made:
        if not isinstance(tool["function"], Mapping) or not isinstance(tool["function"].get("name"), str):
            raise BadRowError(f"column {name!r} has a tool without a function's name")
    return made


def images_of(row: Mapping[str, Any], used: Collection[str]) -> list[str]:
    """The images of the row: paths, URLs, or data URIs of those that are held as bytes."""
    for name in _OTHER_MEDIA:
        if row.get(name) and name not in used:
            raise BadRowError(f"has the column {name!r}: audio and video are not supported")
    column = next((name for name in _IMAGES if row.get(name) and name not in used), None)
    if column is None:
        return []
    value = row[column]
    return [_image(each, column) for each in (value if isinstance(value, list) else [value])]


def _image(value: Any, name: str) -> str:
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path") or value.get("url")
    if isinstance(value, bytes):
        return f"data:application/octet-stream;base64,{base64.b64encode(value).decode()}"
    if not isinstance(value, str):
        raise BadRowError(f"column {name!r} has an image that is {kind(value)}, not a path, a URL or bytes")
    return value
