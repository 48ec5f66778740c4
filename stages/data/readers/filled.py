"""Nulls that a table by columns has in place of keys that were not given.

Parquet, Arrow and the hub's rows give every object of a column the same keys. What another tool's schema or another
call's arguments have is null then, and no part of this one.
"""

from __future__ import annotations

from typing import Any

TOOLS, CALLS = ("tools", "functions"), ("tool_calls", "function_call")
"""Columns of tools, and keys of calls in a message."""


def unfilled(value: Any, inside: bool) -> Any:
    """The value without nulls in calls. inside: whether it is of tools or calls itself."""
    if isinstance(value, list):
        return [unfilled(each, inside) for each in value]
    if isinstance(value, dict):
        pairs = ((key, each) for key, each in value.items() if each is not None or not inside)
        return {key: unfilled(each, inside or key in CALLS) for key, each in pairs}
    return value


def unfilled_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a table by columns without the nulls in its tools and calls."""
    return {key: unfilled(each, key in TOOLS) if isinstance(each, list | dict) else each for key, each in row.items()}


def may_be_filled(name: str, kind: Any) -> bool:
    """Whether the column of that name and Arrow type may have tools or calls."""
    return name in TOOLS or _holds_calls(kind)


def _holds_calls(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _holds_calls(kind.value_type)
    return types.is_struct(kind) and any(field.name in CALLS or _holds_calls(field.type) for field in kind)
