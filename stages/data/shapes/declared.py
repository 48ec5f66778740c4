"""Tools as Gemini and Bedrock declare them, as lists of functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_DECLARATIONS = ("functionDeclarations", "function_declarations")
_TYPES = ("OBJECT", "ARRAY", "STRING", "NUMBER", "INTEGER", "BOOLEAN", "NULL")
"""Gemini's names of the types of JSON Schema."""


def functions(tools: list[Any]) -> Iterator[Any]:
    """The tools, with Gemini's declarations one by one and what Bedrock calls `toolSpec` as it would be elsewhere."""
    for tool in tools:
        declared = next((name for name in _DECLARATIONS if isinstance(tool, Mapping) and name in tool), None)
        if declared and len(tool) == 1 and isinstance(tool[declared], list):
            yield from map(_with_types, tool[declared])
        elif isinstance(tool, Mapping) and len(tool) == 1 and isinstance(spec := tool.get("toolSpec"), Mapping):
            schema = spec.get("inputSchema")
            inner = schema.get("json") if isinstance(schema, Mapping) and len(schema) == 1 else None
            yield {**spec, "inputSchema": inner} if inner is not None else spec
        else:
            yield tool


def _with_types(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_types(each) for each in value]
    if isinstance(value, Mapping):
        return {
            key: each.lower() if key == "type" and each in _TYPES else _with_types(each) for key, each in value.items()
        }
    return value
