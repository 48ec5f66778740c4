"""Which of the known shapes a row has, and the `dataset.prompt` that fits it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.data.messages import ROLE_NAMES
from stages.data.shapes.conversation import holds_messages, parsed
from stages.data.shapes.preference import CHOSEN, REJECTED

_PAIRS = (
    ("prompt", "completion"), ("prompt", "response"), ("question", "answer"), ("question", "response"),
    ("instruction", "response"), ("instruction", "completion"), ("input", "output"), ("query", "response"),
    ("source", "target"), ("document", "summary"), ("article", "summary"), ("dialogue", "summary"),
    ("text", "label"), ("sentence", "label"),
)  # fmt: skip
_ANSWERS = (
    ("better", "worse"), ("preferred", "dispreferred"), ("preferred", "rejected"), ("winner", "loser"),
    ("chosen", "rejected"), ("accepted", "rejected"), ("good", "bad"),
)  # fmt: skip
"""Other names of a chosen and a rejected answer, or words in which both names differ: good_answer, bad_answer."""
_QUESTIONS = ("prompt", "question", "instruction", "query")
_TALKS = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns", "chat", "contents")
_WORSE = ("rejected_response", "rejected_messages")
"""Names of a worse answer next to messages that end with the better one."""
_SYSTEMS = ("system", "system_prompt")


def recognise(row: Mapping[str, Any]) -> tuple[str, str]:
    """(name of the shape, the YAML of `dataset.prompt` that fits it); two empty texts for no known shape."""
    for find in (_preference, _named_otherwise, _conversation, _alpaca, _prompt_completion, _text):
        if found := find(row):
            return found
    return "", ""


def _preference(row: Mapping[str, Any]) -> tuple[str, str] | None:
    chosen = next((name for name in CHOSEN if name in row), None)
    if chosen is None or not any(name in row for name in REJECTED):
        return _worse_next_to_messages(row)
    if isinstance(row.get("input"), Mapping) and "messages" in row["input"]:
        return "preference (OpenAI)", "{conversations: input.messages}"
    talk = next((name for name in _TALKS[:4] if _roles(row.get(name)) and not _is_answered(row[name])), None)
    if talk:
        return "preference (messages)", f"{{conversations: {talk}}}"
    asked, answer = next((name for name in _QUESTIONS if name in row), None), _roles(row[chosen])
    if len(answer) > 1 or (answer and asked is None):
        return "preference (TRL)", f"{{conversations: {chosen}}}"
    if asked is None:
        return "preference", ""
    return "preference", f'{{user: "{_asked(row, asked)}", assistant: "{{{chosen}}}"{_system(row)}}}'


def _worse_next_to_messages(row: Mapping[str, Any]) -> tuple[str, str] | None:
    worse = next((name for name in _WORSE if name in row), None)
    talk = next((name for name in _TALKS if _roles(row.get(name)) and _is_answered(row[name])), None)
    if worse is None or talk is None:
        return None
    return "preference (messages)", f'{{conversations: {talk}, chosen: "{{{talk}}}", rejected: "{{{worse}}}"}}'


def _roles(value: Any) -> list[str]:
    """The roles of the messages of a cell; none where it has no messages."""
    value = parsed(value)
    messages = value if isinstance(value, list) else [value]
    return [str(each.get("role", each.get("from"))) for each in messages] if holds_messages(value) else []


def _is_answered(value: Any) -> bool:
    """Whether the messages end with an answer."""
    return ROLE_NAMES.get(_roles(value)[-1].lower()) == "assistant"


def _system(row: Mapping[str, Any]) -> str:
    """The part of a prompt for a column of system messages."""
    column = next((name for name in _SYSTEMS if isinstance(row.get(name), str)), None)
    return f', system: "{{{column}|}}"' if column else ""


def _named_otherwise(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """A preference pair of texts in columns of other names."""
    texts = [name for name, value in row.items() if isinstance(value, str)]
    pair = next(
        (
            (name, other)
            for better, worse in _ANSWERS
            for name in texts
            if better in name and (other := name.replace(better, worse)) in texts
        ),
        None,
    )
    asked = next((name for name in (*_QUESTIONS, "input") if isinstance(row.get(name), str)), None)
    if pair is None or asked is None:
        return None
    better, worse = (f"{{{name}}}" for name in pair)
    answers = f'assistant: "{better}", chosen: "{better}", rejected: "{worse}"'
    return "preference", f'{{user: "{_asked(row, asked)}", {answers}{_system(row)}}}'


def _asked(row: Mapping[str, Any], column: str) -> str:
    return f"{{{column}}}\\n{{input|}}" if column == "instruction" and "input" in row else f"{{{column}}}"


def _conversation(row: Mapping[str, Any]) -> tuple[str, str] | None:
    column = next((name for name in _TALKS if name in row and _may_hold_messages(name, row[name])), None)
    if column is None:
        return None
    value = row[column]
    sharegpt = isinstance(value, list) and value and isinstance(value[0], Mapping) and "from" in value[0]
    system = _system(row) if "system" not in row else ""  # which conversations have of themselves
    return ("ShareGPT" if sharegpt else "messages"), f"{{conversations: {column}{system}}}"


def _may_hold_messages(name: str, value: Any) -> bool:
    """Whether the column has messages, or what was to be some: text that looks like a list, nothing at all."""
    if isinstance(value, str):
        return name in _TALKS[:4] and value.lstrip()[:1] in ("[", "{")
    return holds_messages(value) or (name in _TALKS[:4] and value in (None, []))


def _alpaca(row: Mapping[str, Any]) -> tuple[str, str] | None:
    if "instruction" not in row or "output" not in row:
        return None
    system = _system({"system": "", **row} if "system" in row else row)
    if holds_turns(row.get("history")):
        system += ', history: "{history|}"'
    kind = "KTO (alpaca)" if "kto_tag" in row else "alpaca"
    return kind, f'{{user: "{{instruction}}\\n{{input|}}", assistant: "{{output}}"{system}}}'


def holds_turns(value: Any) -> bool:
    """Whether a column named history may hold pairs of turns, rather than a text about somebody's history."""
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip()[:2] in ("[]", "[["))


def _prompt_completion(row: Mapping[str, Any]) -> tuple[str, str] | None:
    pair = next((pair for pair in _PAIRS if all(name in row for name in pair)), None)
    if pair is None:
        return None
    context = "{context|}\\n" if isinstance(row.get("context"), str) and "context" not in pair else ""
    history = ', history: "{history|}"' if holds_turns(row.get("history")) else ""
    return "prompt and completion", (
        f'{{user: "{context}{{{pair[0]}}}", assistant: "{{{pair[1]}}}"{_system(row)}{history}}}'
    )


def _text(row: Mapping[str, Any]) -> tuple[str, str] | None:
    return ("text", '{text: "{text}"}') if "text" in row else None
