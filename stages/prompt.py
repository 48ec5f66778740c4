"""The one prompt spec: how a row becomes messages, for training data, batch requests and client requests alike.

A template is text with `{column}` in it; `{{` and `}}` stand for braces. Nothing else is interpreted: no attributes,
no format specifiers, and a column's own text is never looked at for braces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from runner.errors import RunnerError
from runner.schema import Prompt

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@lru_cache(maxsize=64)
def _parse(template: str) -> tuple[tuple[bool, str], ...]:
    """The template as parts: (True, column) or (False, literal text). Raises RunnerError on a stray brace."""
    parts: list[tuple[bool, str]] = []
    end = 0
    for token in _TOKEN.finditer(template):
        parts.append((False, template[end : token.start()]))
        end = token.end()
        if token.group() in ("{{", "}}"):
            parts.append((False, token.group()[0]))
        elif token.group(1):
            parts.append((True, token.group(1)))
        else:
            raise RunnerError(
                f"the prompt template {template!r} has a stray {token.group()!r} at character {token.start()}",
                "Write {column} for a column of the row, and {{ or }} for a brace.",
            )
    parts.append((False, template[end:]))
    return tuple(part for part in parts if part[1])


def columns(template: str) -> set[str]:
    """Names of the columns that the template takes. Raises RunnerError on a stray brace."""
    return {text for is_column, text in _parse(template) if is_column}


def prompt_columns(prompt: Prompt) -> set[str]:
    """Names of the columns that the whole prompt takes."""
    return columns(prompt.system or "") | columns(prompt.user) | columns(prompt.assistant)


def render(template: str, row: Mapping[str, Any]) -> str:
    """The template with each `{column}` replaced by that column of the row, as text.

    Raises RunnerError naming the column when the row has none of that name.
    """
    return "".join(_value(row, text) if is_column else text for is_column, text in _parse(template))


def _value(row: Mapping[str, Any], column: str) -> str:
    if column not in row:
        present = ", ".join(map(repr, row)) or "none"
        raise RunnerError(
            f"the prompt takes the column {column!r}, which the row lacks; it has: {present}",
            "Name a column of the dataset in dataset.prompt.{system,user,assistant}, or write {{ }} for braces.",
        )
    value = row[column]
    return value if isinstance(value, str) else str(value)


def request_messages(prompt: Prompt, row: Mapping[str, Any]) -> list[dict[str, str]]:
    """The chat messages that ask about the row: `[system?, user]`, each `{role, content}`."""
    messages = [{"role": "user", "content": render(prompt.user, row)}]
    if prompt.system is not None:
        messages.insert(0, {"role": "system", "content": render(prompt.system, row)})
    return messages


def reference(prompt: Prompt, row: Mapping[str, Any]) -> str:
    """The assistant's text: what to learn, and what a prediction is scored against."""
    return render(prompt.assistant, row)
