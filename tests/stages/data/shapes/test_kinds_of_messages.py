"""Conversations of other people's kinds: each key is used, or the row is refused by a sentence that names it."""

from __future__ import annotations

from typing import Any

import pytest

from stages.data.example import BadRowError, Example
from stages.data.shapes.convert import make_example
from stages.sections.dataset import Dataset

ASK: dict[str, Any] = {"role": "user", "content": "Any rye?"}
SAY: dict[str, Any] = {"role": "assistant", "content": "Two."}
TOOLS = [{"type": "function", "function": {"name": "stock", "parameters": {"type": "object"}}}]


def call(id: str = "c1", name: str = "stock", arguments: Any = '{"item": "rye"}') -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls) or [call()], **keys}


def result(id: str = "c1") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": "2"}


def parts(*content: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": list(content)}


def made(messages: list[dict[str, Any]], tools: Any = None, **dataset: Any) -> Example:
    section = Dataset.model_validate({"source": "data", "prompt": {"conversations": "m"}, **dataset})
    return make_example(section, "sft", "train")({"m": messages, **({"tools": tools} if tools else {})}, "0", "a:1")


REFUSED = {
    "half a weight": ([ASK, {**SAY, "weight": 0.5}], None, "weight of message 2"),
    "flags that contradict": ([ASK, {**SAY, "train": True, "weight": 0}], None, "contradict: train, weight"),
    "a question to learn": ([{**ASK, "train": True}, SAY], None, "only answers are learned"),
    "two texts of reasoning": ([ASK, {**SAY, "reasoning": "a", "thinking": "b"}], None, "reasoning and thinking, and"),
    "a question's reasoning": ([{**ASK, "reasoning_content": "a"}, SAY], None, "has reasoning"),
    "a cached text": (
        [parts({"type": "text", "text": "a", "cache_control": {"type": "x"}}), SAY],
        None,
        "'cache_control'",
    ),
    "another tool": ([ASK, calling(call(name="other")), result(), SAY], TOOLS, "calls 'other', which is none of its"),
    "a result of no call": ([ASK, calling(), result("zz"), SAY], TOOLS, "the result of a call 'zz'"),
    "one id twice": ([ASK, calling(call("a"), call("a")), result("a"), SAY], TOOLS, "two calls with the id 'a'"),
    "a result first": ([result(), ASK, SAY], TOOLS, "the first is the tool's"),
    "names of tools": ([ASK, SAY], ["stock"], "a list of which one entry is text"),
    "arguments as text": ([ASK, calling(call(arguments="rye")), result(), SAY], TOOLS, "are not JSON"),
    "a refusal": ([ASK, {"role": "assistant", "content": None, "refusal": "No."}], None, "unknown key 'refusal'"),
    "a tool's use in parts": ([ASK, parts({"type": "tool_use"}, role="assistant")], None, "type 'tool_use'"),
    "a prefilled answer": ([ASK, {**SAY, "prefix": True}], None, "unknown key 'prefix'"),
    "an empty turn": ([parts(), SAY], None, "user message is empty"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_would_be_left_out_is_refused_by_name(what: str) -> None:
    messages, tools, words = REFUSED[what]
    with pytest.raises(BadRowError, match=words):
        made(messages, tools)


def test_parallel_calls_are_used_with_results_in_any_order() -> None:
    example = made([ASK, calling(call("a"), call("b")), result("b"), result("a"), SAY], TOOLS)
    assert [each["id"] for each in example.messages[1]["tool_calls"]] == ["a", "b"]


def test_a_key_of_a_text_part_that_is_to_be_ignored_is() -> None:
    cached = parts({"type": "text", "text": "Any rye?", "cache_control": {"type": "ephemeral"}})
    assert made([cached, SAY], ignore_keys=["cache_control"]).messages == [ASK, SAY]
