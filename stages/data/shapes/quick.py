"""The usual row, made an Example's messages quickly: templates of columns that all have texts.

Whatever is not that usual is left to `convert`, which makes the same of these rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stages.data.example import Message
from stages.data.prompt import Line, parse
from stages.data.shapes.extras import MEDIA
from stages.sections.prompt import Prompt

Fill = Callable[[Mapping[str, Any]], str | None]


def quick_messages(prompt: Prompt) -> Callable[[Mapping[str, Any]], list[Message] | None] | None:
    """The messages of a row, None for a row that is not usual; None where the prompt has a column of messages."""
    if (
        prompt.history is not None
        or prompt.conversations is not None
        or prompt.user is None
        or prompt.assistant is None
    ):
        return None
    user, assistant = _filled(prompt.user), _filled(prompt.assistant)
    system = _filled(prompt.system) if prompt.system else None

    def messages(row: Mapping[str, Any]) -> list[Message] | None:
        asked, answer = user(row), assistant(row)
        if asked is None or answer is None or not MEDIA.isdisjoint(row):
            return None
        turns: list[Message] = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        if system is None:
            return turns
        text = system(row)
        return None if text is None else [{"role": "system", "content": text}, *turns]

    return messages


def _filled(template: str) -> Fill:
    """The template with the columns of a row; None for a row in which one is not a text, or is blank."""
    lines = parse(template)
    parts = [part for line in lines for part in line[0]]
    names = [part.name for part in parts if not isinstance(part, str)]
    text = "\n".join(map(_format, lines))
    if any(not isinstance(part, str) and part.filters for part in parts) or not text.strip():
        return lambda row: None
    if text == "%s":
        (name,) = names
        return lambda row: _text(row.get(name))

    def fill(row: Mapping[str, Any]) -> str | None:
        values = [row.get(name) for name in names]
        for value in values:
            if type(value) is not str or not value or value.isspace():
                return None
        return text % tuple(values)

    return fill


def _text(value: Any) -> str | None:
    return value if type(value) is str and value and not value.isspace() else None


def _format(line: Line) -> str:
    return "".join(part.replace("%", "%%") if isinstance(part, str) else "%s" for part in line[0])
