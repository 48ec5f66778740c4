"""Templates of the prompt spec: how columns of a row become the text of a message.

A template is text with `{column}` in it; `{{` and `}}` stand for braces. `{data.question}` and `{answers.text.0}` name
a part of a nested column, or of the JSON text that tables have for one. Filters follow a bar: `{answers|json}`.
`{input|}` is optional: a line whose columns are all
optional and empty is left out. Nothing else is interpreted, and a column's own text is never looked at for braces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from runner.errors import RunnerError, nearest
from stages.data.example import BadRowError, is_blank
from stages.data.messages import kind
from stages.data.readers.json_values import value_of
from stages.sections.prompt import Prompt

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_LACKS = object()
OPTIONAL = ""
_MOST_NAMED = 20


def _as_json(value: Any) -> str:
    """The value as JSON; numbers as they were written."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_as_json(key)}: {_as_json(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_as_json, value)) + "]"
    if isinstance(value, bool | int | str | None):
        return json.dumps(value, ensure_ascii=False)
    return as_text(value)


def _join(value: Any, between: str = ", ") -> str:
    value = _opened(value)
    if not isinstance(value, list):
        fix = 'Write a list, in tables as JSON (["a", "b"]), or leave the filter out.'
        raise BadRowError(f"is {kind(value)}, and only a list can be joined", fix)
    return between.join(as_text(each) for each in value)


FILTERS: dict[str, Callable[[Any], str]] = {
    "json": _as_json,
    "join": _join,
    "lines": lambda value: _join(value, "\n"),
    "strip": lambda value: as_text(value).strip(),
    "lower": lambda value: as_text(value).lower(),
}
"""What may follow a bar, besides nothing (optional) and `default:TEXT`."""


def as_text(value: Any) -> str:
    """A value as text, unchanged: numbers as they were written, true and false in lower case.

    Raises BadRowError for null, lists, objects and binary data, which a template cannot hold as they are, and for a
    value that could not be read.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, list | dict | bytes):
        raise BadRowError(f"is {kind(value)}, not text or a number")
    if isinstance(value, BadRowError):  # of a reader that could not read it
        raise value
    if isinstance(value, float) and value - value != 0:
        raise BadRowError(f"is {value}, which is not a number")
    return str(value)


@dataclass(frozen=True)
class Column:
    """A column that a template names. path: its parts. filters: in order. default: text for a row without it."""

    name: str
    filters: tuple[str, ...] = ()
    default: str | None = None

    def value(self, row: Mapping[str, Any]) -> str:
        """Its text in this row. Raises BadRowError when the row lacks it, or it cannot be text."""
        value = find(row, self.name)
        if type(value) is str and value and not self.filters:
            return value
        if self.default is not None and (value is _LACKS or value is None or value in ("", [], {})):
            return self.default
        if value is _LACKS:
            raise BadRowError(
                f"lacks the column {self.name!r}; it has: {names(row)}",
                f"Name a column of the row in dataset.prompt, or write {{{self.name}|}} for one that may be missing.",
            )
        if value == "":
            raise BadRowError(
                f"column {self.name!r} is empty", f"Write {{{self.name}|}} to leave its line out where it is empty."
            )
        try:
            for each in self.filters:
                value = FILTERS[each](value)
            return as_text(value)
        except BadRowError as error:
            raise BadRowError(f"column {self.name!r} {error.why}", error.fix or _fix(self.name, value)) from None


def _fix(name: str, value: Any) -> str:
    if isinstance(value, dict) and value:
        return f"Name a part, such as {{{_part(name, value)}}}, or write {{{name}|json}}."
    if isinstance(value, list):
        part = _part(name, value)
        return f"Name a part, such as {{{part}}}, or write {{{name}|join}}, {{{name}|lines}} or {{{name}|json}}."
    if isinstance(value, bytes):
        return "Write the file with the column as text."
    return f"Write {{{name}|}} to leave its line out where it is missing." if value is None else ""


def _part(name: str, value: Any) -> str:
    """The first part of a nested value that is text or a number."""
    while isinstance(value, dict | list) and value:
        key = next(iter(value)) if isinstance(value, dict) else 0
        name, value = f"{name}.{key}", value[key]
    return name


def find(row: Mapping[str, Any], name: str) -> Any:
    """The value of a column: of that very name, or of the parts between dots, also of JSON text; `_LACKS` when there
    is none."""
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        value = _opened(value)
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return _LACKS
    return value


def _opened(value: Any) -> Any:
    """The value; of JSON text, as tables have lists and objects, what it stands for."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        with suppress(ValueError):
            return value_of(value)
    return value


def has(row: Mapping[str, Any], name: str) -> bool:
    """Whether the row has the column."""
    return find(row, name) is not _LACKS


def cell(row: Mapping[str, Any], name: str) -> Any:
    """The value of a column, or None when the row lacks it."""
    value = find(row, name)
    return None if value is _LACKS else value


def names(row: Collection[str]) -> str:
    """The row's columns, for the words of a message."""
    shown = [*list(row)[:_MOST_NAMED], *(["..."] if len(row) > _MOST_NAMED else [])]
    return ", ".join(shown) or "none"


Line = tuple[tuple["str | Column", ...], bool]
"""Parts of a line, and whether it is left out when its columns, all optional, are empty."""


@lru_cache(maxsize=64)
def parse(template: str) -> tuple[Line, ...]:
    """The template line by line. Raises RunnerError on a stray brace or an unknown filter."""
    lines: list[list[str | Column]] = [[]]
    end = 0
    for token in _TOKEN.finditer(template):
        _add_text(lines, template[end : token.start()])
        end = token.end()
        if token.group() in ("{{", "}}"):
            _add_text(lines, token.group()[0])
        elif token.group(1):
            lines[-1].append(_column(token.group(1), template))
        else:
            raise RunnerError(
                f"the prompt template {template!r} has a stray {token.group()!r} at character {token.start()}",
                "Write {column} for a column of the row, and {{ or }} for a brace.",
            )
    _add_text(lines, template[end:])
    return tuple((tuple(line), _may_go(line)) for line in lines)


def _add_text(lines: list[list[str | Column]], text: str) -> None:
    first, *others = text.split("\n")
    if first:
        lines[-1].append(first)
    lines.extend([each] if each else [] for each in others)


def _may_go(line: list[str | Column]) -> bool:
    found = [part for part in line if isinstance(part, Column)]
    return bool(found) and all(column.default == OPTIONAL for column in found)


def _column(text: str, template: str) -> Column:
    name, *filters = text.split("|")
    default = None
    kept = []
    for each in filters:
        if each == OPTIONAL:
            default = OPTIONAL
        elif each.startswith("default:"):
            default = each.removeprefix("default:")
        elif each in FILTERS:
            kept.append(each)
        else:
            guess = nearest(each, FILTERS)
            known = ", ".join([*FILTERS, "default:TEXT"])
            raise RunnerError(
                f"the prompt template {template!r} has the unknown filter {each!r}; there are: {known}",
                f"Did you mean {{{name}|{guess}}}?" if guess else f"Write {{{name}|}} for an optional column.",
            )
    return Column(name, tuple(kept), default)


def template_columns(template: str) -> list[Column]:
    """The columns that the template names, in order. Raises RunnerError on a stray brace or an unknown filter."""
    return [part for line, _ in parse(template) for part in line if isinstance(part, Column)]


def columns(template: str) -> set[str]:
    """Names of the columns that the template names."""
    return {column.name for column in template_columns(template)}


_BRACED = re.compile(r"(?<!\{)\{\{\s*([^{}|]+?)\s*\}\}(?!\})")


def braced(template: str) -> list[str]:
    """Names in two braces, which are not columns: these stand for one brace of the text."""
    return _BRACED.findall(template)


@lru_cache(maxsize=64)
def only_column(template: str) -> str | None:
    """The column's name where the template is that column and nothing else."""
    lines = parse(template)
    alone = lines[0][0][0] if len(lines) == 1 and len(lines[0][0]) == 1 else None
    return alone.name if isinstance(alone, Column) and not alone.filters else None


def optional_column(template: str) -> bool:
    """Whether the column that the template is may be missing."""
    return all(column.default is not None for column in template_columns(template))


TEMPLATES = ("system", "user", "assistant", "history", "chosen", "rejected", "label", "text")


def prompt_columns(prompt: Prompt) -> set[str]:
    """Names of the columns that the whole prompt names."""
    named = set().union(*(columns(getattr(prompt, name) or "") for name in TEMPLATES))
    return named | ({prompt.conversations} if prompt.conversations is not None else set())


def render(template: str, row: Mapping[str, Any]) -> str:
    """The template with each `{column}` replaced by that column of the row, as text.

    Raises BadRowError naming a column that the row lacks or that cannot be text.
    """
    made = []
    for line, may_go in parse(template):
        parts = [part if isinstance(part, str) else part.value(row) for part in line]
        if may_go and all(is_blank(part) for part, of in zip(parts, line, strict=True) if isinstance(of, Column)):
            continue
        made.append("".join(parts))
    return "\n".join(made)
