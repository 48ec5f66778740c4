"""What request models leave open and vLLM expects: contents, calls and forms of a shape that it can read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from stages.serve.guard.refusal import bad_request

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
Wrong = tuple[str, str]  # parameter, and what it must be


def refuse_malformed(body: Mapping[str, Any]) -> None:
    """Raise RefusedError naming the first value of another shape."""
    for param, wanted in _wrong(body):
        raise bad_request(f"{param} must be {wanted}.", param)


def _wrong(body: Mapping[str, Any]) -> Iterator[Wrong]:
    messages = body.get("messages")
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        if isinstance(message, dict):
            yield from _wrong_content(message.get("content"), f"messages[{index}].content")
            yield from _wrong_calls(message.get("tool_calls"), f"messages[{index}].tool_calls")
    form = body.get("response_format")
    if isinstance(form, dict) and form.get("type") == "json_schema":
        inner = form.get("json_schema")
        if not isinstance(inner, dict) or inner.get("schema") is None:
            yield "response_format.json_schema.schema", "a JSON schema"
    request_id = body.get("request_id")  # a part of the answer's id, and of lines of logs
    if isinstance(request_id, str) and not _REQUEST_ID.fullmatch(request_id):
        yield "request_id", "at most 128 letters, digits and . _ : -"


def _wrong_content(content: Any, where: str) -> Iterator[Wrong]:
    if content is not None and not isinstance(content, str | list):
        yield where, "a text or a list of parts"
    for at, part in enumerate(content if isinstance(content, list) else ()):
        if isinstance(part, dict) and part.get("type") == "text" and not isinstance(part.get("text"), str):
            yield f"{where}[{at}].text", "a text"


def _wrong_calls(calls: Any, where: str) -> Iterator[Wrong]:
    if calls is not None and not isinstance(calls, list):
        yield where, "a list of calls"
    for at, call in enumerate(calls if isinstance(calls, list) else ()):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
            yield f"{where}[{at}].function", "an object with a name and arguments"
        elif not _is_object_text(function.get("arguments")):
            yield f"{where}[{at}].function.arguments", "a JSON object, as a text"


def _is_object_text(arguments: Any) -> bool:
    if not isinstance(arguments, str):
        return False
    try:
        return not arguments.strip() or isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        return False
