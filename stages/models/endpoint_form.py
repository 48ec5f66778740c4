"""Messages and tools in the one form that chat templates are given: the form in which vLLM's endpoint gives them.

Content is text, or a list of parts where the chat template reads no text (`rendered_messages`); a call's arguments are
an object; reasoning stands under both names that templates use; a tool has a description and parameters, null where it
lacks them. Keys have the endpoint's order, which templates show that write an object as JSON; those of calls have
OpenAI's, in the endpoint too (`with_calls_in_order`). What has no place in this form is refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from runner.errors import RunnerError

_THOUGHT = re.compile(r"\A\s*<think>(.*?)</think>\s*", re.DOTALL)
_KEYS = {"role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content", "train"}
_TOOL_KEYS = {"type", "function"}
_OWN_ID = "call{:05d}"  # of nine letters and digits, which Mistral's templates ask for
_FUNCTION_KEYS = {"name", "description", "parameters", "strict"}


IMAGE = {"type": "image"}
"""A message's place for the Example's next image."""


class RefusedRowError(RunnerError):
    """A row that cannot be trained or asked as it is. The message names what, the hint what to do."""


def template_messages(messages: Sequence[Mapping[str, Any]], *, split_thoughts: bool) -> list[dict[str, Any]]:
    """Messages of an Example as the chat template is given them.

    split_thoughts: `<think>...</think>` at the start of an answer becomes its reasoning, for templates that render it.
    Content is a text; a message with images, or without content, has `parts` as well, of which `rendered_messages`
    makes its content.
    Raises RefusedRowError for parts that are neither text nor image, and for keys that have no meaning here.
    """
    found = enumerate(with_ids(messages), 1)
    return [_template_message(number, message, split_thoughts) for number, message in found]


def with_ids(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The messages with ids of calls and their results, which requests must have: those that the row has none of are
    numbered, and a result belongs to the first call that has none yet."""
    made: list[Mapping[str, Any]] = []
    count, waiting = 0, list[str]()
    for message in messages:
        if calls := message.get("tool_calls"):
            numbered = []
            for call in calls:
                count += 1
                numbered.append({**call, "id": call.get("id") or _OWN_ID.format(count)})
            waiting = [each["id"] for each in numbered]
            message = {**message, "tool_calls": numbered}
        elif message["role"] == "tool":
            of = message.get("tool_call_id") or (waiting[0] if waiting else None)
            waiting = [each for each in waiting if each != of]
            message = {**message, "tool_call_id": of} if of else message
        made.append(message)
    return made


def _template_message(number: int, message: Mapping[str, Any], split_thoughts: bool) -> dict[str, Any]:
    if unknown := sorted(set(message) - _KEYS):
        raise RefusedRowError(f"message {number} has {unknown[0]!r}, which is not used", "Remove it from the rows.")
    made: dict[str, Any] = {"role": message["role"], "content": _text(number, message["content"])}
    if has_images(message):
        made["parts"] = [dict(part) for part in message["content"]]
    elif message["content"] is None:
        made["parts"] = []
    reasoning = message.get("reasoning_content")
    if message["role"] == "assistant" and split_thoughts and (found := _THOUGHT.match(made["content"])):
        reasoning = found.group(1).strip("\n") if reasoning is None else reasoning
        made["content"] = made["content"][found.end() :]
    if calls := message.get("tool_calls"):
        made["tool_calls"] = [_call(number, call) for call in calls]
    if reasoning is not None:
        made |= {"reasoning": reasoning, "reasoning_content": reasoning}
    return made | {key: message[key] for key in ("tool_call_id", "name") if message.get(key) is not None}


def has_images(message: Mapping[str, Any]) -> bool:
    """Whether the message of an Example has a place for an image."""
    return isinstance(message["content"], list) and IMAGE in message["content"]


def rendered_messages(messages: Sequence[Mapping[str, Any]], *, in_parts: bool) -> list[dict[str, Any]]:
    """The messages as the template's program reads them. in_parts: content is a list of parts, as vLLM gives it, which
    gives a tool's result as text to these templates, too."""
    made = []
    for message in messages:
        content: Any = message["content"]
        if in_parts and message["role"] != "tool":
            content = message.get("parts", [{"type": "text", "text": content}])
        made.append({**{key: each for key, each in message.items() if key != "parts"}, "content": content})
    return made


def _text(number: int, content: Any) -> str:
    if isinstance(content, list):
        for part in content:
            if part.get("type") != "text" and part != IMAGE:
                raise RefusedRowError(
                    f"message {number} has a part of type {part.get('type')!r}, which is not taken",
                    "Use rows with texts and images alone.",
                )
        return "".join(part.get("text", "") for part in content)
    return content or ""


def _call(number: int, call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function", call)
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError as error:
            raise RefusedRowError(
                f"message {number} calls {function.get('name')!r} with arguments that are not JSON: {arguments[:80]!r}",
                "Write the arguments as a JSON object.",
            ) from error
    return {"id": call["id"], "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def with_calls_in_order(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages with the keys of calls in OpenAI's order: id, type, function, and name before arguments.

    vLLM gives templates `arguments` first, in the order of the openai package's types. Templates that write a call as
    JSON whole (Mistral's do) would show models calls in another order than they were trained on before, which parsers
    that read an answer as it comes do not take.
    """
    return [
        {**message, "tool_calls": [_in_order(call) for call in calls]}
        if isinstance(calls := message.get("tool_calls"), list)
        else dict(message)
        for message in messages
    ]


def _in_order(call: Mapping[str, Any]) -> dict[str, Any]:
    made = _first(call, "id", "type", "function")
    return made | {"function": _first(call["function"], "name", "arguments")} if "function" in call else made


def _first(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """The values, those of the keys first."""
    return {key: values[key] for key in keys if key in values} | dict(values)


def template_tools(tools: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Tools as the chat template is given them, None without any. Raises RefusedRowError for unknown keys."""
    return [_tool(tool) for tool in tools] if tools else None


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool["function"] if isinstance(tool.get("function"), Mapping) else tool
    unknown = sorted(
        (set(tool) - _TOOL_KEYS if function is not tool else set()) | set(function) - _FUNCTION_KEYS - {"type"}
    )
    if unknown or "name" not in function:
        what = f"the key {unknown[0]!r}, which no request can have" if unknown else "no name"
        or_so = f" Or leave the key out by dataset.ignore_keys=[{unknown[0]}]." if unknown else ""
        form = "Write tools as {type: function, function: {name, description, parameters}}."
        raise RefusedRowError(f"a tool has {what}", f"{form}{or_so}")
    made = {
        "name": function["name"],
        "description": function.get("description"),
        "parameters": function.get("parameters"),
    }
    if function.get("strict") is not None:
        made["strict"] = function["strict"]
    return {"type": "function", "function": made}


def without_reasoning(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages without reasoning_content, and answers without a `<think>` block before them."""
    made = []
    for message in messages:
        kept = {key: value for key, value in message.items() if key != "reasoning_content"}
        if kept["role"] == "assistant" and isinstance(kept["content"], str):
            kept["content"] = strip_thought(kept["content"])
        made.append(kept)
    return made


def sent_messages(
    messages: Sequence[Mapping[str, Any]], images: Sequence[str] | None = None, *, reasoning: str = "learn"
) -> list[dict[str, Any]]:
    """Messages as a client sends them, of which the endpoint makes what `template_messages` makes.

    images: of the Example, as data URIs. reasoning: of earlier answers, `strip` leaves it out.
    """
    made, left = [], iter(images or ())
    for message in with_ids(without_reasoning(messages) if reasoning == "strip" else messages):
        sent = {key: value for key, value in message.items() if key not in ("train", "reasoning_content")}
        if has_images(message):
            sent["content"] = [
                {"type": "image_url", "image_url": {"url": next(left)}} if part == IMAGE else part
                for part in message["content"]
            ]
        if message.get("reasoning_content") is not None:
            sent["reasoning"] = message["reasoning_content"]
        if message.get("tool_calls"):
            sent["tool_calls"] = [_sent_call(call) for call in message["tool_calls"]]
        made.append(sent)
    return made


def _sent_call(call: Mapping[str, Any]) -> dict[str, Any]:
    """A request's arguments are JSON text."""
    function = dict(call["function"])
    if not isinstance(function["arguments"], str):
        function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
    return {**call, "function": function}


def strip_thought(text: str) -> str:
    """The text after its reasoning: without a `<think>` block, or without all up to a `</think>` alone."""
    before, end, after = text.partition("</think>")
    return after.lstrip() if end and ("<think>" not in before or before.lstrip().startswith("<think>")) else text


def with_thought(text: str, reasoning: str | None) -> str:
    """The text after its reasoning, where there is any, as one text."""
    return f"<think>\n{reasoning.strip()}\n</think>\n\n{text}" if reasoning and reasoning.strip() else text
