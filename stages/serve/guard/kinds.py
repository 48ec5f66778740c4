"""Numbers and booleans of a request are JSON's: `true` is not one, nor is `"1"`, and `1` is not a boolean.

The request models would convert them, and compute with what the client did not mean.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from stages.serve.guard.refusal import bad_request

_WORDS = {bool: "true or false", int: "a whole number", float: "a number"}
_SINGLE = {frozenset(kinds): kinds[-1] for kinds in ((bool,), (int,), (float,), (int, float))}


@dataclass(frozen=True)
class Kind:
    """What a parameter takes. single: bool, int or float; None where it may be anything else too. inner: of a mapping
    or of each mapping in a list, by name."""

    single: type | None = None
    inner: Mapping[str, Kind] = field(default_factory=dict)


def kinds_of(annotation: Any) -> Kind:
    """Of a parameter's type."""
    plain = [each for each in _members(annotation) if each is not types.NoneType]
    inner: dict[str, Kind] = {}
    for each in plain:
        inner |= _inner(each)
    return Kind(_SINGLE.get(frozenset(plain)), inner)


def _members(annotation: Any) -> Iterator[Any]:
    """The types of a union."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _members(parts[0])
    elif origin in (Union, types.UnionType):
        for each in parts:
            yield from _members(each)
    else:
        yield annotation


def _inner(annotation: Any) -> Mapping[str, Kind]:
    if get_origin(annotation) is list:
        return kinds_of(get_args(annotation)[0]).inner
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.items()
        return {each.alias or name: kinds_of(each.annotation) for name, each in fields}
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        hints = get_type_hints(annotation)
        return {name: kinds_of(hint) for name, hint in hints.items() if not name.startswith("_")}
    return {}


def refuse_other_kinds(body: Mapping[str, Any], kinds: Mapping[str, Kind], outer: str = "") -> None:
    """Raise RefusedError naming the first parameter whose value is a number, boolean or text in place of another."""
    for name, value in body.items():
        kind = kinds.get(name)
        if kind is None or value is None:
            continue
        if kind.single is not None and not _is(kind.single, value):
            param = f"{outer}{name}"
            shown = "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else repr(value)
            message = f"{param} is {shown[:50]}, and must be {_WORDS[kind.single]}."
            raise bad_request(message, param)
        for each in value if isinstance(value, list) else [value]:
            if kind.inner and isinstance(each, dict):
                refuse_other_kinds(each, kind.inner, f"{outer}{name}.")


def _is(kind: type, value: Any) -> bool:
    if isinstance(value, bool) or kind is bool:
        return kind is bool and isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(value, int | float)
