"""Messages in OpenAI's or ShareGPT's words to `Message`: each key is used, ignored by name, or refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from stages.data.example import BadRowError, Message, Role
from stages.data.readers.json_values import value_of

ROLE_NAMES: dict[str, Role] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant", "chatgpt": "assistant",
    "ai": "assistant", "chatbot": "assistant", "bing": "assistant", "bard": "assistant", "claude": "assistant",
    "tool": "tool", "function": "tool", "observation": "tool", "function_response": "tool", "tool_response": "tool",
    "ipython": "tool", "tool_output": "tool", "tool_result": "tool", "tool_results": "tool", "function_result": "tool",
}  # fmt: skip
"""Spellings of a role, in lower case, and the role that they mean."""
CALL_ROLES = ("function_call", "tool_call")
"""ShareGPT's roles of an assistant's message whose text is a call."""
FLAGS = ("train", "weight", "loss", "loss_mask", "training", "trainable", "learn")
"""Keys that say whether training learns a message: true, false, 1 or 0."""
MESSAGE_KEYS = (
    "role", "from", "content", "value", "name", "tool_calls", "tool_call_id", "reasoning_content", "reasoning",
    "thinking", "function_call", *FLAGS,
)  # fmt: skip
_SPEAKER, _CONTENT = ("speaker", "sender", "author"), ("text", "utterance", "message", "parts")
"""Other keys that say a message's role and content, where it has no usual one."""
_NO_ROLES: Mapping[str, Role] = {}
_FORM = 'Write each message as {"role": "user", "content": "..."}.'
_TEXT = (
    'Write {"type": "text", "text": "..."}; a call belongs in tool_calls, its result in a message of the role tool, '
    "reasoning in reasoning_content."
)
_MASKS = ("mask", "loss", "ignore", "skip", "train")
"""In names of keys that say what training leaves out."""
_FLAG_TEXTS = {"true": True, "false": False, "1": True, "0": False}
_CALL = 'Write {"name": "...", "arguments": {...}}.'
_ARGUMENTS = ("arguments", "parameters", "args", "input")
"""Names of a call's arguments: Llama's templates and Anthropic's interface have others."""
_CALL_KEYS = ("id", "type", "index", "function", "name", *_ARGUMENTS)
_REASONING = ("reasoning_content", "reasoning", "thinking")
_PARTS = ("text", "image", "image_url", "input_image", "input_text", "output_text", "audio", "input_audio", "video")


def check_message(
    value: Any, where: str, ignore: Collection[str] = (), roles: Mapping[str, Role] = _NO_ROLES
) -> Message:
    """The message of a row. where: for the words, such as "message 2 of column 'messages'". ignore: keys to leave out.
    roles: the recipe's own names of roles.

    Raises BadRowError when a key is unknown, or a value cannot be used.
    """
    if not isinstance(value, Mapping):
        raise BadRowError(f"{where} is {kind(value)}, not an object with role and content", _FORM)
    given = _named({key: each for key, each in value.items() if key not in ignore and _is_given(key, each)})
    if given and not {"role", "from", "content", "value"} & given.keys():
        raise BadRowError(f"{where} has neither role nor content; it has: {', '.join(given)}", _FORM)
    spelling = _either(given, "role", "from", where)
    if isinstance(spelling, str) and spelling.lower() in CALL_ROLES:
        given, spelling = _as_call(given, where), "assistant"
    if unknown := [key for key in given if key not in MESSAGE_KEYS]:
        why = f"{where} has the unknown key {unknown[0]!r}; a message has: {', '.join(MESSAGE_KEYS)}"
        raise BadRowError(why, _fix_of_key(str(unknown[0])))
    content = _either(given, "content", "value", where)
    message: Message = {"role": _role(spelling, where, roles), "content": _content(content, where, ignore)}
    for key in ("name", "tool_call_id"):
        if key in given:
            message[key] = _text(given[key], f"{key} of {where}")
    if calls := given.get("tool_calls"):
        message["tool_calls"] = [_call(call, where, ignore) for call in _calls(calls, f"tool_calls of {where}")]
    if call := given.get("function_call"):  # OpenAI's form before tools
        _add_old_call(message, _call(call, where, ignore), where)
    thoughts = {key: _text(given[key], f"{key} of {where}") for key in _REASONING if given.get(key)}
    if len(set(thoughts.values())) > 1:
        raise BadRowError(f"{where} has {' and '.join(thoughts)}, and they differ", "Remove one of them.")
    if thoughts:
        message["reasoning_content"] = next(iter(thoughts.values()))
    flags = {_flag(key, given[key], where) for key in FLAGS if key in given}
    if len(flags) > 1:
        raise BadRowError(f"{where} has two flags that contradict: {', '.join(key for key in FLAGS if key in given)}")
    if flags:
        message["train"] = flags.pop()
    return _whole(message, where)


def _fix_of_key(key: str) -> str:
    if any(each in key.lower() for each in _MASKS):
        return f'Write "train": false in a message that is not to be learned, and remove {key}.'
    return f"Remove it, or name it in dataset.ignore_keys=[{key}]."


def _named(given: Mapping[str, Any]) -> dict[str, Any]:
    """The message by our keys: one that has neither role nor from may say speaker, and so on."""
    pairs = ((("role", "from"), _SPEAKER), (("content", "value"), _CONTENT))
    spelled = {
        next(key for key in others if key in given): known[0]
        for known, others in pairs
        if not any(key in given for key in known) and sum(key in given for key in others) == 1
    }
    return {spelled.get(key, key): each for key, each in given.items()}


def _whole(message: Message, where: str) -> Message:
    role = message["role"]
    if "tool_calls" in message and role != "assistant":
        raise BadRowError(f"{where} has tool_calls, which only an assistant's message can have; its role is {role}")
    if "reasoning_content" in message and role != "assistant":
        raise BadRowError(f"{where} has reasoning, which only an assistant's message can have; its role is {role}")
    if message.get("train") and role != "assistant":
        fix = "Remove the flag (train, weight, loss), or set it to 0, which a message of this role has anyway."
        raise BadRowError(f"{where} is to be learned, and its role is {role}: only answers are learned", fix)
    if message["content"] is None and "tool_calls" not in message:
        raise BadRowError(f"{where} has no content", "Give it a text, or remove the message.")
    return message


def _is_given(key: str, value: Any) -> bool:
    """Whether the key says something: a key that is not of ours and is empty, as other tools write it, does not."""
    return value is not None and (key in MESSAGE_KEYS or value not in ("", [], {}))


def _either(given: Mapping[str, Any], first: str, second: str, where: str) -> Any:
    """The value of one of two keys. Raises BadRowError when they contradict."""
    if first in given and second in given and given[first] != given[second]:
        raise BadRowError(
            f"{where} has both {first} and {second}, and they differ", f"Remove one of {first}, {second}."
        )
    return given.get(first, given.get(second))


def _role(spelling: Any, where: str, roles: Mapping[str, Role]) -> Role:
    if isinstance(spelling, str):
        word = spelling.strip().lower()
        own = next((role for name, role in roles.items() if name.strip().lower() == word), None)
        role = roles.get(spelling) or own or ROLE_NAMES.get(word)
        if role is not None:
            return role
    names = ", ".join(ROLE_NAMES)
    fix = f"Say which role it is, such as dataset.roles={{{spelling}: user}}." if isinstance(spelling, str) else _FORM
    raise BadRowError(f"{where} has the role {spelling!r}; there are: {names}", fix)


def _content(value: Any, where: str, ignore: Collection[str] = ()) -> str | list[dict[str, Any]] | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping) and value.get("type") in _PARTS:
        value = [value]
    if not isinstance(value, list):
        fix = "Write it as text, such as JSON." if isinstance(value, Mapping) else "Write it as text, in quotes."
        raise BadRowError(f"the content of {where} is {kind(value)}, not text or a list of parts", fix)
    parts = [_part(part, where, ignore) for part in value]
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _part(part: Any, where: str, ignore: Collection[str]) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, Mapping):
        raise BadRowError(f"a content part of {where} is {kind(part)}, not an object", _TEXT)
    if "type" not in part and [key for key, value in part.items() if value is not None] == ["text"]:
        part = {"type": "text", **part}  # as Gemini and Bedrock have it
    if not isinstance(part.get("type"), str):
        raise BadRowError(f"a content part of {where} has no type; it has: {', '.join(part)}", _TEXT)
    if part["type"] not in _PARTS:
        raise BadRowError(
            f"a content part of {where} has the unknown type {part['type']!r}; there are: text, image_url", _TEXT
        )
    if part["type"] in ("text", "input_text", "output_text"):
        more = [key for key, value in part.items() if key not in ("type", "text", *ignore) and _is_given(key, value)]
        if more:
            fix = f"Remove it, or name it in dataset.ignore_keys=[{more[0]}]."
            raise BadRowError(f"a text part of {where} has the unknown key {more[0]!r}", fix)
        return {"type": "text", "text": _text(part.get("text"), f"a text part of {where}")}
    return {key: value for key, value in part.items() if value is not None}


def _call(call: Any, where: str, ignore: Collection[str]) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise BadRowError(f"a tool call of {where} has no function with a name", _CALL)
    given = {key: each for key, each in {**call, **function}.items() if key not in ignore and each is not None}
    if unknown := [key for key, each in given.items() if key not in _CALL_KEYS and _is_given(key, each)]:
        fix = f"Remove it, or name it in dataset.ignore_keys=[{unknown[0]}]."
        raise BadRowError(f"a tool call of {where} has the unknown key {unknown[0]!r}", fix)
    named = [key for key in _ARGUMENTS if key in given]
    if len(named) > 1:
        raise BadRowError(f"a tool call of {where} has both {named[0]} and {named[1]}", _CALL)
    arguments = given[named[0]] if named else None
    if isinstance(arguments, str):
        try:
            arguments = value_of(arguments or "{}")
        except ValueError as error:
            raise BadRowError(f"the arguments of a tool call of {where} are {error}", _CALL) from error
    if not isinstance(arguments, Mapping | None):
        raise BadRowError(f"the arguments of a tool call of {where} are {kind(arguments)}, not an object", _CALL)
    made = {"type": "function", "function": {"name": function["name"], "arguments": dict(arguments or {})}}
    return {"id": call["id"], **made} if call.get("id") and "id" not in ignore else made


def _add_old_call(message: Message, call: dict[str, Any], where: str) -> None:
    calls = message.setdefault("tool_calls", [])
    if not calls:
        calls.append(call)
    elif [each["function"] for each in calls] != [call["function"]]:
        raise BadRowError(f"{where} has both tool_calls and function_call, and they differ", "Remove function_call.")


def _as_call(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A message of a role for calls, as the assistant's: its text is the call, or name and arguments are."""
    calls = _either(given, "content", "value", where)
    call_keys = {"role", "from", "content", "value"}
    if calls is None and "name" in given:
        calls = {key: given[key] for key in ("name", *_ARGUMENTS) if key in given}
        call_keys |= calls.keys()
    if isinstance(calls, str):
        try:
            calls = value_of(calls)
        except ValueError as error:
            raise BadRowError(f"{where} is a tool call whose text is {error}", _CALL) from error
    calls = calls if isinstance(calls, list) else [calls]
    return {"tool_calls": calls, **{key: each for key, each in given.items() if key not in call_keys}}


def _flag(key: str, value: Any, where: str) -> bool:
    if value in (0, 1):  # False and True, 0.0 and 1.0
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in _FLAG_TEXTS:
        return _FLAG_TEXTS[value.strip().lower()]
    fix = "Write 1 or true for a message to learn, 0 or false for another."
    raise BadRowError(f"{key} of {where} is {value!r}: training learns a message (1, true) or does not (0, false)", fix)


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise BadRowError(f"{what} is {kind(value)}, not text")
    return value


def _calls(value: Any, what: str) -> list[Any]:
    """The list of calls, or one, which tables may have as JSON text."""
    if isinstance(value, str):
        try:
            value = value_of(value)
        except ValueError as error:
            raise BadRowError(f"{what} is {error}", f"{_CALL[:-1]}, in a list.") from error
    if isinstance(value, Mapping) and {"function", "name"} & value.keys():
        return [value]
    if not isinstance(value, list):
        raise BadRowError(f"{what} is {kind(value)}, not a list", f"{_CALL[:-1]}, in a list.")
    return value


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "null"
    names = {
        bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object",
        bytes: "binary data",
    }  # fmt: skip
    return names.get(type(value), f"a {type(value).__name__}")
