"""Columns that belong to the conversation, next to its messages: tools, images, and what no training reads."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any

from runner.text import count_text
from stages.data.example import BadRowError
from stages.data.messages import FLAGS, kind
from stages.data.readers.filled import TOOLS
from stages.data.readers.json_values import value_of
from stages.data.shapes.declared import functions
from stages.data.shapes.pictures import PLACE, image_value

_NULLS = ("default", "const")
"""Keys of a schema that may be null; another one that is was filled in by a table by columns."""
_SCHEMAS = ("input_schema", "inputSchema")
"""Anthropic's and MCP's names of a tool's parameters."""
_TOOLS = 'Write a list, or its JSON: [{"name": "...", "description": "...", "parameters": {...}}].'
_VARIABLES = "chat_template_kwargs"
"""TRL's name of a column of the chat template's variables."""
_IMAGES = ("images", "image")
_OTHER_MEDIA = ("videos", "video", "audios", "audio")
MEDIA = frozenset((*_IMAGES, *_OTHER_MEDIA))
"""Columns of images, audio and video."""
PLACEHOLDERS = ("<image>", "<video>", "<audio>")
"""What stands in a text for an image, video or audio of such a column."""


def refuse_settings(row: Mapping[str, Any], used: Collection[str], ignore: Collection[str] = ()) -> None:
    """Raise BadRowError for a column that says how this row alone is learned or rendered. ignore: to leave out."""
    named = [name for name in (*FLAGS, _VARIABLES) if name in row and name not in used and name not in ignore]
    for name in named:
        value = _opened(row[name])
        leave_out = f"leave the column out by dataset.ignore_keys=[{name}]."
        if name in FLAGS and type(value) in (bool, int, float) and (value == 0 or (name == "weight" and value != 1)):
            why = f"has {value!r} in its column {name!r}, and every row is learned as much as the others"
            raise BadRowError(why, f"Remove the row, or {leave_out}")
        if name == _VARIABLES and (given := _given(value)):
            why = f"has {given[0]!r} in its column {name!r}, and all rows share the chat template's variables"
            raise BadRowError(why, f"Set model.chat_template_kwargs for all of them, and {leave_out}")


def _given(variables: Any) -> list[str]:
    """Names of the variables that have a value."""
    given = variables.items() if isinstance(variables, Mapping) else ()
    return [str(name) for name, value in given if value not in (None, "", [], {})]


def tools_of(row: Mapping[str, Any], used: Collection[str], ignore: Collection[str] = ()) -> list[dict[str, Any]]:
    """The tools of the row, in OpenAI's form. ignore: keys of a tool or its function to leave out.

    Raises BadRowError when they are not a list of functions.
    """
    given = [name for name in TOOLS if row.get(name) and name not in used]
    if not given:
        return []
    name = given[0]
    if any(row[each] != row[name] for each in given):
        raise BadRowError(f"has the columns {' and '.join(given)}, and they differ", "Keep one of them.")
    tools = row[name]
    if isinstance(tools, str):
        try:
            tools = value_of(tools)
        except ValueError:
            raise BadRowError(f"column {name!r} is text that is not JSON, not a list of tools", _TOOLS) from None
        if tools is None:
            return []
    if isinstance(tools, Mapping) and {"function", "name", "functionDeclarations"} & tools.keys():
        tools = [tools]
    if isinstance(tools, list):
        tools = list(functions([_opened(each) for each in tools]))
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        entry = (
            next((each for each in tools if not isinstance(each, Mapping)), None) if isinstance(tools, list) else None
        )
        what = f"a list of which one entry is {kind(entry)}" if entry is not None else kind(tools)
        raise BadRowError(f"column {name!r} is {what}, not a list of tools", _TOOLS)
    made = [_tool(_without_nulls(tool), ignore) for tool in tools]
    for tool in made:
        if not isinstance(tool["function"], Mapping) or not isinstance(tool["function"].get("name"), str):
            raise BadRowError(f"column {name!r} has a tool without a function's name", _TOOLS)
    return made


def _opened(value: Any) -> Any:
    """A tool, or a cell, which may be JSON text."""
    if isinstance(value, str):
        with suppress(ValueError):
            return value_of(value)
    return value


def _tool(tool: dict[str, Any], ignore: Collection[str]) -> dict[str, Any]:
    """The tool in OpenAI's form."""
    left_out = {*ignore} - {"name", "function", "type", "parameters", *_SCHEMAS}
    tool = {name: each for name, each in tool.items() if name not in left_out}
    if isinstance(tool.get("function"), Mapping):
        return {**tool, "function": {name: each for name, each in tool["function"].items() if name not in left_out}}
    if "function" in tool:
        return tool
    schema = next((name for name in _SCHEMAS if name in tool and "parameters" not in tool), None)
    named = {"parameters" if name == schema else name: each for name, each in tool.items()}
    function = {name: each for name, each in named.items() if (name, each) != ("type", "function")}
    return {"type": "function", "function": function}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    if isinstance(value, Mapping):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None or key in _NULLS}
    return value


def images_of(row: Mapping[str, Any], used: Collection[str], texts: Iterable[str]) -> list[str | bytes]:
    """The images of the row: paths, URLs, base64, data URIs or bytes. texts: of its messages.

    Raises BadRowError where a column of images is empty and a text has a place for one.
    """
    for name in _OTHER_MEDIA:
        if row.get(name) and name not in used:
            raise BadRowError(f"has the column {name!r}: audio and video are not supported")
    column = next((name for name in _IMAGES if row.get(name) and name not in used), None)
    if column is None:
        _refuse_places(row, used, texts)
        return []
    value = row[column]
    return [image_value(each, f"column {column!r}") for each in (value if isinstance(value, list) else [value])]


def _refuse_places(row: Mapping[str, Any], used: Collection[str], texts: Iterable[str]) -> None:
    column = next((name for name in _IMAGES if name in row and name not in used), None)
    if column is not None and any(PLACE in text for text in texts):
        fix = f"Name the image in it, or remove {PLACE} from the text."
        raise BadRowError(f"has a place for an image, {PLACE}, and none in its column {column!r}", fix)


def without_media(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with how many images a column has in place of them."""
    return {
        name: f"({count_text(len(value) if isinstance(value, list) else 1, 'image')})"
        if name in _IMAGES and value
        else value
        for name, value in row.items()
    }
