"""Calls, results and reasoning as blocks of a message's content, or as items next to messages, in OpenAI's form.

Anthropic's interface has blocks of the types tool_use, tool_result and thinking, Gemini's has functionCall,
functionResponse and thought among a message's parts, Bedrock's toolUse, toolResult and reasoningContent, and OpenAI's
Responses has items of the types function_call and function_call_output between its messages.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from stages.data.example import BadRowError
from stages.data.messages import ROLE_NAMES, kind

_CONTENTS = ("content", "parts")
_ITEMS = ("function_call", "function_call_output", "reasoning")
_FIX = "Write the call in tool_calls, its result in a message of the role tool, reasoning in reasoning_content."
_PROOFS = ("signature", "thoughtSignature", "thought_signature")  # of a service, for itself


def with_calls(messages: list[Any], where: str, ignore: Collection[str]) -> list[tuple[str, Any]]:
    """The messages of a cell with calls in `tool_calls`, results as messages of the role tool, and reasoning under its
    name; each with where it comes from, in words. What is in OpenAI's form, or in none, stays as it is.

    Raises BadRowError for blocks whose order or content that form cannot have.
    """
    made: list[tuple[str, Any]] = []
    for number, message in enumerate(messages, 1):
        at = f"message {number} of {where}"
        if not isinstance(message, Mapping):
            made.append((at, message))
        elif message.get("type") in _ITEMS and "role" not in message:
            _add_item(made, message, at, ignore)
        else:
            made += [(at, each) for each in _of_message(message, at, ignore)]
    return made


def _of_message(message: Mapping[str, Any], at: str, ignore: Collection[str]) -> Iterator[Any]:
    name = next((key for key in _CONTENTS if isinstance(message.get(key), list)), None)
    blocks = [_named(block, ignore) for block in message[name]] if name else []
    if not any(isinstance(block, _Block) for block in blocks):
        if message.get("type") == "message" and "role" in message:  # of Responses, with what it says of itself
            message = {key: value for key, value in message.items() if key not in ("type", "id", "status")}
        yield message
        return
    assert name is not None
    rest = {key: value for key, value in message.items() if key != name}
    role = ROLE_NAMES.get(str(message.get("role")).lower())
    yield from (_answer if role == "assistant" else _results)(rest, blocks, at)


class _Block:
    """A block that a message in OpenAI's form has elsewhere: a call, a result or reasoning, and its values."""

    def __init__(self, what: str, **values: Any) -> None:
        self.what, self.values = what, values


def _named(block: Any, ignore: Collection[str]) -> Any:
    """The block as `_Block`, or as it is, where it is a text, an image or unknown."""
    if not isinstance(block, Mapping):
        return block
    given = {key: value for key, value in block.items() if key not in (*ignore, *_PROOFS) and value is not None}
    for find in (_anthropic, _gemini, _bedrock):
        if found := find(given):
            return _Block(found.what, **{key: each for key, each in found.values.items() if key not in ignore})
    return {key: value for key, value in block.items() if key not in _PROOFS} if "text" in given else block


def _anthropic(block: Mapping[str, Any]) -> _Block | None:
    rest = {key: value for key, value in block.items() if key != "type"}
    match block.get("type"):
        case "tool_use":
            return _Block("call", **rest)
        case "tool_result":
            return _Block("result", **_renamed(rest, tool_use_id="tool_call_id"))
        case "thinking":
            return _Block("reasoning", **_renamed(rest, thinking="text"))
    return None


def _gemini(block: Mapping[str, Any]) -> _Block | None:
    if isinstance(call := block.get("functionCall", block.get("function_call")), Mapping) and len(block) == 1:
        return _Block("call", **call)
    if isinstance(found := block.get("functionResponse", block.get("function_response")), Mapping) and len(block) == 1:
        return _Block("result", **_renamed(found, id="tool_call_id", response="content"))
    if block.get("thought") is True and "text" in block:
        return _Block("reasoning", **{key: value for key, value in block.items() if key != "thought"})
    return None


def _bedrock(block: Mapping[str, Any]) -> _Block | None:
    if len(block) != 1:
        return None
    if isinstance(call := block.get("toolUse"), Mapping):
        return _Block("call", **_renamed(call, toolUseId="id"))
    if isinstance(found := block.get("toolResult"), Mapping):
        return _Block("result", **_renamed(found, toolUseId="tool_call_id"))
    if isinstance(found := block.get("reasoningContent"), Mapping) and isinstance(found.get("reasoningText"), Mapping):
        return _Block("reasoning", **{key: value for key, value in found["reasoningText"].items() if key == "text"})
    return None


def _renamed(values: Mapping[str, Any], **names: str) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in values.items() if value is not None}


def _answer(rest: Mapping[str, Any], blocks: list[Any], at: str) -> Iterator[dict[str, Any]]:
    """An assistant's message: reasoning, then texts, then calls."""
    thoughts: list[Any] = []
    content: list[Any] = []
    calls: list[Any] = []
    for block in blocks:
        what = block.what if isinstance(block, _Block) else "text"
        if what == "result":
            raise BadRowError(f"{at} has a result of a call, and its role is assistant", _FIX)
        if (what != "call" and calls) or (what == "reasoning" and content):
            raise BadRowError(
                f"{at} has {'a text' if what == 'text' else 'reasoning'} after {'a call' if calls else 'a text'}",
                "A model is asked for reasoning, then text, then calls: write them as messages of their own.",
            )
        if what == "reasoning":
            thoughts.append(_only(block, ("text",), at).get("text"))
        else:
            (calls if what == "call" else content).append(block.values if what == "call" else block)
    made = {**rest, "content": content or None}
    if calls:
        made["tool_calls"] = calls
    if thoughts:
        made["reasoning_content"] = _joined(thoughts, at)
    yield made


def _results(rest: Mapping[str, Any], blocks: list[Any], at: str) -> Iterator[dict[str, Any]]:
    """Results of calls as messages of the role tool, then what else the message says."""
    others: list[Any] = []
    for block in blocks:
        if not isinstance(block, _Block):
            others.append(block)
            continue
        if block.what != "result":
            raise BadRowError(f"{at} has {'a call' if block.what == 'call' else 'reasoning'}, and no assistant's role")
        if others:
            raise BadRowError(f"{at} has a result of a call after a text", "Write the text as a message of its own.")
        yield {**rest, **_result(block, at)}
    if others:
        yield {**rest, "content": others}


def _result(block: _Block, at: str) -> dict[str, Any]:
    values = dict(block.values)
    failed = values.pop("is_error", False) or values.pop("status", "success") != "success"
    if failed:
        raise BadRowError(
            f"{at} has a result that is marked as an error, which no request can have",
            "Say it in the result's text, and leave the mark out by dataset.ignore_keys=[is_error, status].",
        )
    found = _only(_Block("result", **values), ("tool_call_id", "name", "content"), at)
    return {**found, "role": "tool", "content": _text_of(found.get("content", ""))}


def _text_of(content: Any) -> Any:
    """A result's content: texts and images as they are, other values as JSON."""
    if isinstance(content, list) and all(isinstance(each, Mapping) and len(each) == 1 for each in content):
        return [
            {"type": "text", "text": _json(each["json"])} if "json" in each else each for each in content
        ]  # Bedrock's
    return content if isinstance(content, str | list) else _json(content)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _only(block: _Block, keys: Collection[str], at: str) -> dict[str, Any]:
    if unknown := [key for key in block.values if key not in keys]:
        fix = f"Remove it, or name it in dataset.ignore_keys=[{unknown[0]}]."
        raise BadRowError(f"{block.what} of {at} has the unknown key {unknown[0]!r}", fix)
    return block.values


def _joined(thoughts: list[Any], at: str) -> str:
    if wrong := next((each for each in thoughts if not isinstance(each, str)), None):
        raise BadRowError(f"the reasoning of {at} is {kind(wrong)}, not text")
    return "\n\n".join(thoughts)


def _add_item(made: list[tuple[str, Any]], item: Mapping[str, Any], at: str, ignore: Collection[str]) -> None:
    """An item of Responses that is not a message. A call belongs to the assistant's message before it, if any."""
    rest = {key: value for key, value in item.items() if key not in ("type", "id", "status", *ignore)}
    if item["type"] == "function_call_output":
        found = _renamed(rest, call_id="tool_call_id", output="content")
        made.append((at, _result(_Block("result", **found), at)))
    elif item["type"] == "function_call":
        before = made[-1][1] if made else None
        if not (isinstance(before, Mapping) and before.get("role") == "assistant"):
            made.append((at, before := {"role": "assistant", "content": None}))
        calls = [*before.get("tool_calls", []), _renamed(rest, call_id="id")]
        made[-1] = (made[-1][0], {**before, "tool_calls": calls})
    elif any(rest.get(key) for key in ("summary", "content")):
        raise BadRowError(
            f"{at} is a summary of reasoning, which is not what the model thought",
            "Remove it, or write reasoning_content into the assistant's message after it.",
        )
