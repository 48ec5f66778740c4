"""The one prompt spec: how a row becomes messages, for training data, batch requests and client requests alike.

Either templates make the messages, or a column holds them. A template is text with `{column}` in it; `{{` and `}}`
stand for braces. Nothing else is interpreted: no attributes, no format specifiers, and a column's own text is never
looked at for braces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from runner.errors import RunnerError
from runner.recipe.schema import Prompt

_ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
_TURNS = "A conversation is a list: at most one system message, then user and assistant in turns, assistant last."
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


def text_columns(prompt: Prompt) -> set[str]:
    """Names of the columns that the prompt's templates take."""
    return columns(prompt.system or "") | columns(prompt.user or "") | columns(prompt.assistant or "")


def prompt_columns(prompt: Prompt) -> set[str]:
    """Names of the columns that the whole prompt takes."""
    return text_columns(prompt) | ({prompt.conversations} if prompt.conversations is not None else set())


def render(template: str, row: Mapping[str, Any]) -> str:
    """The template with each `{column}` replaced by that column of the row, as text.

    Raises RunnerError naming the column when the row has none of that name.
    """
    return "".join(_value(row, text) if is_column else text for is_column, text in _parse(template))


def _value(row: Mapping[str, Any], column: str) -> str:
    value = _cell(row, column)
    return value if isinstance(value, str) else str(value)


def _cell(row: Mapping[str, Any], column: str) -> Any:
    if column not in row:
        present = ", ".join(map(repr, row)) or "none"
        raise RunnerError(
            f"the prompt takes the column {column!r}, which the row lacks; it has: {present}",
            "Name a column of the dataset in dataset.prompt, or write {{ }} for braces.",
        )
    return row[column]


def request_messages(prompt: Prompt, row: Mapping[str, Any]) -> list[dict[str, str]]:
    """The chat messages that ask about the row, each `{role, content}`: `[system?, user]`, with earlier turns of a
    conversation between."""
    return all_messages(prompt, row)[:-1]


def reference(prompt: Prompt, row: Mapping[str, Any]) -> str:
    """The assistant's last text: what to learn, and what a prediction is scored against."""
    return all_messages(prompt, row)[-1]["content"]


def all_messages(prompt: Prompt, row: Mapping[str, Any]) -> list[dict[str, str]]:
    """The row as a conversation, the answer with it: `[system?, user, assistant, ...]`, each `{role, content}`.

    Raises RunnerError when the row lacks a column, or its conversation is none.
    """
    if prompt.conversations is not None:
        messages = _conversation(_cell(row, prompt.conversations), prompt.conversations)
    else:
        assert prompt.user is not None, "a recipe without user and without conversations is refused"
        assert prompt.assistant is not None, "a recipe without assistant and without conversations is refused"
        messages = [
            {"role": "user", "content": render(prompt.user, row)},
            {"role": "assistant", "content": render(prompt.assistant, row)},
        ]
    if prompt.system is not None and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": render(prompt.system, row)})
    return messages


def _conversation(value: Any, column: str) -> list[dict[str, str]]:
    """The messages of a cell, in OpenAI's form (role, content) or ShareGPT's (from, value)."""
    messages: list[dict[str, str]] = []
    for message in value if isinstance(value, list) else ():
        said = message if isinstance(message, dict) else {}
        role, content = said.get("role", said.get("from")), said.get("content", said.get("value"))
        if role not in _ROLES or not isinstance(content, str):
            number = f"message {len(messages) + 1} of column {column!r}"
            raise RunnerError(
                f"{number} is {str(message)[:80]!r}: not a text by system, user (human) or assistant (gpt)", _TURNS
            )
        messages.append({"role": _ROLES[role], "content": content})
    turns = [message["role"] for message in messages]
    turns = turns[1:] if turns[:1] == ["system"] else turns
    if not turns or len(turns) % 2 or turns != ["user", "assistant"] * (len(turns) // 2):
        shown = ", ".join(turns) or "none"
        raise RunnerError(f"column {column!r} holds no conversation: its turns are {shown}", _TURNS)
    return messages
