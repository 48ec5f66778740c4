"""The messages of a chat request: what the endpoint would not use of them is refused, and named.

The request models leave messages open, and vLLM takes from each what it knows (`vllm.entrypoints.chat_utils`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stages.serve.guard.refusal import bad_request

_KEYS = ("role", "content", "name")
_MORE = {
    "assistant": ("tool_calls", "reasoning"),
    "tool": ("tool_call_id",),
    "developer": ("tools",),
}
_PRESENT = {"reasoning_content": "reasoning", "thinking": "reasoning", "function_call": "tool_calls"}
_TEXT_PART = ("type", "text")
_UNUSED = "unused_parameter"
_ROLES = ("system", "developer", "user", "assistant", "tool")
_PARTS = ("text", "image_url")
_AS_IT_IS = ("mm_processor_kwargs", "media_io_kwargs")


def refuse_unused(body: Mapping[str, Any]) -> None:
    """Raise RefusedError naming the first key of a message that no chat template would see. Empty values pass: clients
    send answers back with all of their fields. A part of a message is a text or an image, which is taken as it is:
    vLLM fetches what parts of other types name."""
    for name in _AS_IT_IS:
        if body.get(name):
            raise bad_request(f"{name} is not used by this endpoint. It takes images as they are.", name, _UNUSED)
    messages = body.get("messages")
    if not isinstance(messages, list):
        return
    for index, message in enumerate(messages):
        if isinstance(message, dict):
            for key, used in _unused(message):
                param = f"messages[{index}].{key}"[:200]
                raise bad_request(f"{param} is not used by this endpoint.{_hint(key, used)}", param, _UNUSED)


def refuse_empty(body: Mapping[str, Any]) -> None:
    """Raise RefusedError for a conversation without a message, and for the first message of no known role or without
    content. A template writes any role, and nothing where content is missing; an assistant may have none."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        return
    if not messages:
        raise bad_request("messages is empty. Send at least one message.", "messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            continue
        role, where = message.get("role"), f"messages[{index}]"
        if isinstance(role, str) and role not in _ROLES:
            raise bad_request(f"{where}.role is {role[:50]!r}. It can be {', '.join(_ROLES)}.", f"{where}.role")
        if message.get("content") is None and role in _ROLES and role != "assistant":
            raise bad_request(f"{where}.content is missing.", f"{where}.content")


def _unused(message: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Keys that are not used, with those that are."""
    used = (*_KEYS, *_MORE.get(str(message.get("role")), ()))
    for key, value in message.items():
        if key not in used and value not in (None, "", [], {}):
            yield key, used
    name = message.get("name")
    if name is not None and not isinstance(name, str):
        yield "name", ("a text as the name",)
    parts = message.get("content")
    for at, part in enumerate(parts if isinstance(parts, list) else ()):
        if not isinstance(part, str):  # which vLLM reads as a text
            yield from _unused_of_part(part, f"content[{at}]")


def _unused_of_part(part: Any, name: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        for key in part:
            if key not in _TEXT_PART and part[key] is not None:
                yield f"{name}.{key}", _TEXT_PART
    elif kind == "image_url":
        yield from _unused_of_image(part, name)
    else:
        yield f"{name}.type", _PARTS


def _unused_of_image(part: Mapping[str, Any], name: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """An image is in the request itself: the endpoint fetches nothing, and takes an image as it is."""
    for key, value in part.items():
        if key not in ("type", "image_url") and value is not None:
            yield f"{name}.{key}", ("type", "image_url")
    given = part.get("image_url")
    image = given if isinstance(given, dict) else {"url": given}
    for key, value in image.items():
        if key != "url" and (key, value) not in (("detail", None), ("detail", "auto")):
            yield f"{name}.image_url.{key}", ("url",)
    if not str(image.get("url")).startswith("data:image/"):
        yield f"{name}.image_url.url", ("a data URI, such as data:image/png;base64,...",)


def _hint(key: str, used: tuple[str, ...]) -> str:
    instead = _PRESENT.get(key)
    return f" Use {instead}." if instead in used else f" It uses: {', '.join(used)}."
