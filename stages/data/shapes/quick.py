"""The usual row, made an Example's messages or its line quickly: templates of columns that all have texts.

Whatever is not that usual is left to `convert`, which makes the same of these rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from stages.data.example import Message, columns_json, is_blank, quoted, without_line_ends
from stages.data.prompt import Line, parse
from stages.data.shapes.extras import MEDIA
from stages.sections.prompt import Prompt

Fill = Callable[[Mapping[str, Any]], str | None]
Texts = Callable[[Mapping[str, Any]], "tuple[str, str, str] | None"]
"""The system's, user's and assistant's text of a row; "" for no system message; None for a row that is not usual."""
QuickLine = Callable[[Mapping[str, Any], str, str], "tuple[bytes, str, str] | None"]
"""From a row, its id and its place: the Example's line, the text that tells prompts apart, and the answer."""


def quick_messages(prompt: Prompt) -> Callable[[Mapping[str, Any]], list[Message] | None] | None:
    """The messages of a row, None for a row that is not usual; None where the prompt has a column of messages."""
    texts = _texts(prompt)
    if texts is None:
        return None

    def messages(row: Mapping[str, Any]) -> list[Message] | None:
        if (found := texts(row)) is None:
            return None
        system, user, assistant = found
        turns: list[Message] = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
        return [{"role": "system", "content": system}, *turns] if system else turns

    return messages


def quick_line(prompt: Prompt, keep_columns: bool) -> QuickLine | None:
    """What `quick_messages` and `Example.to_json` make of a row, without what lies between them."""
    texts, of_system = _texts(prompt), lru_cache(maxsize=1)(_system_json)
    if texts is None:
        return None

    def line(row: Mapping[str, Any], row_id: str, place: str) -> tuple[bytes, str, str] | None:
        if (found := texts(row)) is None:
            return None
        system, user, assistant = found
        columns = columns_json(row) if keep_columns else "{}"
        text = (
            f'{{"id": {quoted(row_id)}, "messages": [{of_system(system)}{{"role": "user", "content": {quoted(user)}}}, '
            f'{{"role": "assistant", "content": {quoted(assistant)}}}], "columns": {columns}, '
            f'"source": {quoted(place)}}}\n'
        )
        asked = f"system\0{system}\0user\0{user}" if system else f"user\0{user}"
        return (text if text.isascii() else without_line_ends(text)).encode(), asked, assistant

    return line


def _system_json(text: str) -> str:
    return f'{{"role": "system", "content": {quoted(text)}}}, ' if text else ""


def _texts(prompt: Prompt) -> Texts | None:
    beyond = prompt.history is not None or prompt.conversations is not None
    if beyond or prompt.user is None or prompt.assistant is None:
        return None
    user, assistant = _filled(prompt.user), _filled(prompt.assistant)
    system = _filled(prompt.system) if prompt.system else None

    def texts(row: Mapping[str, Any]) -> tuple[str, str, str] | None:
        asked, answer = user(row), assistant(row)
        if asked is None or answer is None or not MEDIA.isdisjoint(row):
            return None
        first = "" if system is None else system(row)
        return None if first is None else (first, asked, answer)

    return texts


def _filled(template: str) -> Fill:
    """The template with the columns of a row; None for a row in which one is not a text, or is blank."""
    lines = parse(template)
    parts = [part for line in lines for part in line[0]]
    names = [part.name for part in parts if not isinstance(part, str)]
    text = "\n".join(map(_format, lines))
    if any(not isinstance(part, str) and part.filters for part in parts) or not text.strip():
        return lambda row: None
    if not names:
        constant = text % ()
        return lambda row: constant
    if text == "%s":
        (name,) = names
        return _filled_by(name)

    def fill(row: Mapping[str, Any]) -> str | None:
        values = [row.get(name) for name in names]
        for value in values:
            if type(value) is not str or is_blank(value):
                return None
        return text % tuple(values)

    return fill


def _filled_by(name: str) -> Fill:
    def fill(row: Mapping[str, Any]) -> str | None:
        value = row.get(name)
        if type(value) is not str or is_blank(value) or value.lstrip()[0] in "[{":  # which may be messages
            return None
        return value

    return fill


def _format(line: Line) -> str:
    return "".join(part.replace("%", "%%") if isinstance(part, str) else "%s" for part in line[0])
