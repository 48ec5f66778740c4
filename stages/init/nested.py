"""Columns that hold lists or objects: what a template has to write to have their text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.data.example import BadRowError
from stages.data.prompt import only_column, render
from stages.data.shapes.conversation import holds_messages

_LOOKED_AT = 200
_OPTIONS = ("choices", "options", "candidates")


def template_of(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """The template of a column: SQuAD's first answer, a list's texts, or JSON; the column alone where it is a text."""
    values = [row[name] for row in rows[:_LOOKED_AT] if row.get(name) not in (None, "", [], {})]
    if not values or not any(isinstance(value, list | dict) for value in values) or any(map(holds_messages, values)):
        return f"{{{name}}}"
    if all(isinstance(value, dict) and _texts(value.get("text")) for value in values):
        return f"{{{name}.text.0}}"
    return f"{{{name}|join}}" if all(map(_texts, values)) else f"{{{name}|json}}"


def _texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)


def with_texts(rows: Sequence[Mapping[str, Any]], templates: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rows with the text that each template gives in the place of its column."""
    return [{**row, **{name: _text(template, row) for name, template in templates.items()}} for row in rows]


def _text(template: str, row: Mapping[str, Any]) -> str | None:
    try:
        return render(template, row)
    except BadRowError:
        return None


def nested(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, str]:
    """The templates of those columns that hold lists or objects."""
    found = {name: template_of(rows, name) for name in names}
    return {name: template for name, template in found.items() if template != f"{{{name}}}"}


def plain_templates(rows: Sequence[Mapping[str, Any]], prompt: Mapping[str, Any]) -> dict[str, Any]:
    """The prompt with columns of lists and objects written as `template_of` says."""
    made = dict(prompt)
    for key in ("user", "assistant"):
        if (name := only_column(made.get(key) or "")) is not None:
            made[key] = template_of(rows, name)
    return made


def options_of(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The column of choices of a question, each a list of texts."""
    there = (name for name in _OPTIONS if rows and name in rows[0])
    return next((name for name in there if all(_texts(row.get(name)) for row in rows[:_LOOKED_AT])), None)


def parts(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """The names with those of the parts of objects: `translation.en`."""
    found: list[str] = []
    for name in names:
        value = next((row[name] for row in rows[:_LOOKED_AT] if row.get(name)), None)
        inside = [f"{name}.{key}" for key, each in value.items() if each] if isinstance(value, dict) else []
        found += inside or [name]
    return found
