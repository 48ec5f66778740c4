"""Which of the known shapes a row has, and the `dataset.prompt` that fits it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.data.shapes.conversation import holds_messages
from stages.data.shapes.preference import CHOSEN, REJECTED

_PAIRS = (
    ("prompt", "completion"), ("prompt", "response"), ("question", "answer"), ("question", "response"),
    ("input", "output"), ("query", "response"), ("source", "target"), ("text", "label"), ("sentence", "label"),
)  # fmt: skip
_ANSWERS = (
    ("better", "worse"), ("preferred", "dispreferred"), ("preferred", "rejected"), ("winner", "loser"),
    ("chosen_response", "rejected_response"), ("response_chosen", "response_rejected"), ("accepted", "rejected"),
)  # fmt: skip
"""Other names of a chosen and a rejected answer."""
_QUESTIONS = ("prompt", "question", "instruction", "query")
_TALKS = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns", "chat")


def recognise(row: Mapping[str, Any]) -> tuple[str, str]:
    """(name of the shape, the YAML of `dataset.prompt` that fits it); two empty texts for no known shape."""
    for find in (_preference, _named_otherwise, _conversation, _alpaca, _prompt_completion, _text):
        if found := find(row):
            return found
    return "", ""


def _preference(row: Mapping[str, Any]) -> tuple[str, str] | None:
    chosen = next((name for name in CHOSEN if name in row), None)
    if chosen is None or not any(name in row for name in REJECTED):
        return None
    if isinstance(row.get("input"), Mapping) and "messages" in row["input"]:
        return "preference (OpenAI)", "{conversations: input.messages}"
    talk = next((name for name in _TALKS[:4] if name in row), None)
    if talk:
        return "preference (messages)", f"{{conversations: {talk}}}"
    asked = next((name for name in _QUESTIONS if name in row), None)
    if asked is None and holds_messages(row[chosen]):
        return "preference (TRL)", f"{{conversations: {chosen}}}"
    return "preference", f'{{user: "{_asked(row, asked)}", assistant: "{{{chosen}}}"}}' if asked else ""


def _named_otherwise(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """A preference pair of texts in columns of other names."""
    pair = next((pair for pair in _ANSWERS if all(isinstance(row.get(name), str) for name in pair)), None)
    asked = next((name for name in (*_QUESTIONS, "input") if isinstance(row.get(name), str)), None)
    if pair is None or asked is None:
        return None
    better, worse = (f"{{{name}}}" for name in pair)
    return "preference", (
        f'{{user: "{_asked(row, asked)}", assistant: "{better}", chosen: "{better}", rejected: "{worse}"}}'
    )


def _asked(row: Mapping[str, Any], column: str) -> str:
    return f"{{{column}}}\\n{{input|}}" if column == "instruction" and "input" in row else f"{{{column}}}"


def _conversation(row: Mapping[str, Any]) -> tuple[str, str] | None:
    column = next((name for name in _TALKS if name in row and (name in _TALKS[:4] or holds_messages(row[name]))), None)
    if column is None:
        return None
    value = row[column]
    sharegpt = isinstance(value, list) and value and isinstance(value[0], Mapping) and "from" in value[0]
    return ("ShareGPT" if sharegpt else "messages"), f"{{conversations: {column}}}"


def _alpaca(row: Mapping[str, Any]) -> tuple[str, str] | None:
    if "instruction" not in row or "output" not in row:
        return None
    system = ', system: "{system|}"' if "system" in row else ""
    if holds_turns(row.get("history")):
        system += ', history: "{history|}"'
    kind = "KTO (alpaca)" if "kto_tag" in row else "alpaca"
    return kind, f'{{user: "{{instruction}}\\n{{input|}}", assistant: "{{output}}"{system}}}'


def holds_turns(value: Any) -> bool:
    """Whether a column named history may hold pairs of turns, rather than a text about somebody's history."""
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip()[:2] in ("[]", "[["))


def _prompt_completion(row: Mapping[str, Any]) -> tuple[str, str] | None:
    pair = next((pair for pair in _PAIRS if all(name in row for name in pair)), None)
    return pair and ("prompt and completion", f'{{user: "{{{pair[0]}}}", assistant: "{{{pair[1]}}}"}}')


def _text(row: Mapping[str, Any]) -> tuple[str, str] | None:
    return ("text", '{text: "{text}"}') if "text" in row else None
