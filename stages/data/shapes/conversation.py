"""A column of messages, in OpenAI's or ShareGPT's form, as a list or as JSON text."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from stages.data.example import BadRowError, Message, Role, is_blank, text_of
from stages.data.messages import ROLE_NAMES, check_message, kind
from stages.data.prompt import cell, has, names, only_column, render
from stages.data.readers.json_values import NOT_JSON, value_of
from stages.data.shapes.blocks import with_calls
from stages.sections.dataset import Dataset

SYSTEMS = ("system", "systemInstruction", "system_instruction")
"""Columns of a system message, next to a column of messages."""
_ROLE_KEYS = {"role", "from", "speaker", "sender"}
_TEXT_KEYS = {"content", "value", "tool_calls", "text", "parts", "utterance"}
_SHOWN_TURNS = 12
# Between which roles a turn may pass.
_AFTER = {
    None: ("user",), "user": ("assistant",), "assistant": ("user", "tool"), "tool": ("assistant", "tool", "user"),
}  # fmt: skip


def from_column(dataset: Dataset, row: Mapping[str, Any], column: str) -> list[Message]:
    """The messages of the row's column, not yet in order (`in_order`). Raises BadRowError when it holds none."""
    if not has(row, column):
        raise BadRowError(
            f"lacks the column {column!r}; it has: {names(row)}", "Name the column in dataset.prompt.conversations."
        )
    return messages_of(dataset, row, column)


def messages_of(dataset: Dataset, row: Mapping[str, Any], column: str) -> list[Message]:
    """The messages of a column, by the recipe's names of keys and roles."""
    return read_messages(cell(row, column), f"column {column!r}", dataset.ignore_keys, dataset.roles)


def read_messages(
    value: Any, where: str, ignore: Collection[str], roles: Mapping[str, Role] | None = None
) -> list[Message]:
    """The messages of a cell: a list, one message, lists by key, or any of these as JSON text."""
    if isinstance(value, str):
        try:
            value = value_of(value)
        except ValueError as error:
            fix = "Write the list as JSON: this is how Python prints one." if value.startswith("[{'") else ""
            why = "" if str(error) == NOT_JSON else f" ({error})"
            raise BadRowError(f"{where} is text, not a list of messages{why}", fix) from None
    value = _by_message(value, where) if isinstance(value, Mapping) else value
    if not isinstance(value, list):
        fix = "Remove the row, or give it messages." if value is None else ""
        raise BadRowError(f"{where} is {kind(value)}, not a list of messages", fix)
    return [check_message(each, at, ignore, roles or {}) for at, each in with_calls(value, where, ignore)]


def _by_message(value: Mapping[str, Any], where: str) -> list[Any]:
    """One message, or messages of which each key has the list, as the `datasets` library keeps a sequence.

    Raises BadRowError for an object that has the messages under a key.
    """
    if inside := next((key for key, each in value.items() if isinstance(each, list) and holds_messages(each)), None):
        fix = f"Write the name of the column, a dot and {inside}."
        raise BadRowError(f"{where} is an object, whose messages are under {inside!r}", fix)
    lists = [each for each in value.values() if isinstance(each, list)]
    if not {"role", "from"} & value.keys() or len(lists) < len(value) or len({len(each) for each in lists}) > 1:
        return [value]
    return [dict(zip(value, each, strict=True)) for each in zip(*lists, strict=True)]


def holds_messages(value: Any) -> bool:
    """Whether the cell is a list of messages, or one, rather than a text."""
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, Mapping) and not _ROLE_KEYS.isdisjoint(first)


def parsed(value: Any) -> Any:
    """The cell, with messages that are JSON text, as tables have them, as a list."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            found = value_of(value)
        except ValueError:
            return value
        return found if _are_messages(found) else value
    return value


def _are_messages(value: Any) -> bool:
    """Whether a value out of JSON text is messages, and not an answer that has a key such as `from`."""
    messages = value if isinstance(value, list) else [value]
    if not messages or not all(isinstance(each, Mapping) for each in messages):
        return False
    named = all(_ROLE_KEYS & each.keys() and _TEXT_KEYS & each.keys() for each in messages)
    return named and (isinstance(value, list) or str(value.get("role", value.get("from"))).lower() in ROLE_NAMES)


def are_answers(value: Any) -> bool:
    """Whether the messages begin with an answer of the assistant."""
    first = value[0] if isinstance(value, list) else value
    return ROLE_NAMES.get(str(first.get("role", first.get("from"))).lower()) == "assistant"


def in_order(dataset: Dataset, messages: list[Message], row: Mapping[str, Any]) -> list[Message]:
    """The conversation as the recipe's rules have it: `[system?, user, assistant, ...]`, the answer last.

    Raises BadRowError naming the rule that would accept it.
    """
    return with_system(dataset, _turns(dataset, messages), row)


def with_system(dataset: Dataset, messages: list[Message], row: Mapping[str, Any]) -> list[Message]:
    """The messages with the recipe's system message where they have none; an empty one is left out."""
    if messages[:1] and messages[0]["role"] == "system" and not _is_empty(messages[0]):
        own = _own_system(dataset, row)
        if own and own.strip() != text_of(messages[0]).strip():
            fix = "Remove one of the two, or rename the column."
            column = next(name for name in SYSTEMS if row.get(name))
            raise BadRowError(f"has a system message, and another one in its column {column!r}", fix)
        return messages
    text = _system_text(dataset, row)
    return messages if is_blank(text) else [{"role": "system", "content": text}, *messages]


def _system_text(dataset: Dataset, row: Mapping[str, Any]) -> str:
    """The system message of the recipe, or of the row's own `system` column where it has a column of messages."""
    if own := _own_system(dataset, row):
        return own
    template = dataset.prompt.system
    if template is None:
        return ""
    if (column := only_column(template)) is not None and cell(row, column) in ("", None) and column in row:
        return ""
    return render(template, row)


def _own_system(dataset: Dataset, row: Mapping[str, Any]) -> str:
    column = next((name for name in SYSTEMS if row.get(name) not in (None, "", [], {})), None)
    if dataset.prompt.conversations is None or column is None:
        return ""
    value = row[column]
    if not isinstance(value, str):  # parts, or a message, as services for fine-tuning have it
        message = {**value, "role": "system"} if isinstance(value, Mapping) else {"role": "system", "content": value}
        value = check_message(message, f"column {column!r}", dataset.ignore_keys)["content"]
    if not isinstance(value, str):
        raise BadRowError(f"column {column!r} has more than texts", "Write the system message as a text.")
    return "" if is_blank(value) else value


def _turns(dataset: Dataset, messages: list[Message]) -> list[Message]:
    rules = dataset.prompt
    system = [each for each in messages if each["role"] == "system" and not _is_empty(each)]
    turns = [each for each in messages if each["role"] != "system"]
    if rules.systems == "refuse" and (len(system) > 1 or (system and messages.index(system[0]) > 0)):
        raise BadRowError(
            "has several system messages, or one after the first turn",
            "Set dataset.prompt.systems=join to make them one at the start.",
        )
    if rules.assistant_first == "drop":
        while turns and turns[0]["role"] == "assistant":
            turns = turns[1:]
    if rules.unanswered == "drop":
        while turns and turns[-1]["role"] != "assistant":
            turns = turns[:-1]
    if rules.consecutive == "join":
        turns = _joined(turns)
    _check_turns(turns)
    return ([_join(system)] if system else []) + turns


def _is_empty(message: Message) -> bool:
    content = message["content"]
    return is_blank(content) if isinstance(content, str) else content == []


def _joined(turns: list[Message]) -> list[Message]:
    joined: list[Message] = []
    for turn in turns:
        if joined and joined[-1]["role"] == turn["role"] != "tool":
            joined[-1] = _join([joined[-1], turn])
        else:
            joined.append(turn)
    return joined


def _join(messages: list[Message]) -> Message:
    """One message of several: their texts with an empty line between, then the assistant's calls.

    Raises BadRowError where one message cannot hold them in their order.
    """
    if len(messages) == 1:
        return messages[0]
    calls = [call for message in messages for call in message.get("tool_calls", [])]
    if len({message.get("train") for message in messages}) > 1:
        why = "has consecutive messages of one role that training is not to learn alike, which cannot be joined"
        raise BadRowError(why, "Give them the same flag (train, weight, loss), or none.")
    if not _joinable(messages):
        raise BadRowError("has consecutive messages of one role that are more than texts, which cannot be joined")
    texts = [message["content"] for message in messages if message["content"]]
    joined: Message = {**messages[0], "content": "\n\n".join(map(str, texts)) if texts or not calls else None}
    if calls:
        joined["tool_calls"] = calls
    return joined


def _joinable(messages: list[Message]) -> bool:
    """Whether the messages are texts, then calls, with reasoning before the first alone."""
    called = False
    for message in messages:
        if called and message["content"]:
            return False
        called = called or "tool_calls" in message
    keys = {"role", "content", "tool_calls", "train"}
    own = [set(messages[0]) - {"reasoning_content"}, *map(set, messages[1:])]
    return all(each <= keys for each in own) and all(isinstance(message["content"], str | None) for message in messages)


def _check_turns(turns: list[Message]) -> None:
    roles = [turn["role"] for turn in turns]
    shown = ", ".join(roles[:_SHOWN_TURNS]) + (", ..." if len(roles) > _SHOWN_TURNS else "") or "none"
    if not turns:
        raise BadRowError("holds a conversation without a turn", "Remove the row, or give it messages.")
    if set(roles) == {"assistant"}:
        fix = "Give it a message of the user before the answer, or remove the row."
        raise BadRowError(f"its turns are {shown}: nobody asks", fix)
    before = None
    for turn in turns:
        if turn["role"] not in _AFTER[before]:
            raise BadRowError(f"its turns are {shown}: {_broken(before, turn['role'])}", _RULES[_rule(before, turn)])
        before = turn["role"]
    if before != "assistant":
        raise BadRowError(f"its turns are {shown}: the last is the {before}'s, so there is no answer", _RULES["last"])


def _broken(before: str | None, role: str) -> str:
    if before is None:
        return f"the first is the {role}'s"
    return f"two of the {role} in a row" if before == role else f"{role} after {before}"


def _rule(before: str | None, turn: Message) -> str:
    return "first" if before is None and turn["role"] == "assistant" else "same" if before == turn["role"] else "other"


_RULES = {
    "first": "Set dataset.prompt.assistant_first=drop to leave out what the assistant says before the first question.",
    "same": "Set dataset.prompt.consecutive=join to make them one message.",
    "last": "Set dataset.prompt.unanswered=drop to leave out what comes after the last answer.",
    "other": "A conversation is user and assistant in turns, with tool results after the assistant's calls.",
}
