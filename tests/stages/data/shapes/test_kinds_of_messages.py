"""Conversations of other people's kinds: each key is used, or the row is refused by a sentence that names it."""

from __future__ import annotations

import json
import re
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
    "a nameless use of a tool": ([ASK, parts({"type": "tool_use"}, role="assistant")], None, "no function with a name"),
    "a prefilled answer": ([ASK, {**SAY, "prefix": True}], None, "unknown key 'prefix'"),
    "an empty turn": ([parts(), SAY], None, "user message is empty"),
    "a pair in place of a message": ([{"user": "Any rye?", "assistant": "Two."}], None, "neither role nor content"),
    "arguments in a list": ([ASK, calling(call(arguments=["rye"])), result(), SAY], TOOLS, "are a list, not an object"),
    "arguments written twice as JSON": ([ASK, calling(call(arguments='"{}"')), result(), SAY], TOOLS, "are text, not"),
    "an argument given twice": (
        [ASK, calling(call(arguments='{"item": 1, "item": 2}')), result(), SAY], TOOLS, "the key 'item' is given twice"
    ),
    "arguments without end": (
        [ASK, calling(call(arguments='{"item": ' + "[" * 99999)), result(), SAY], TOOLS, "nested deeper"
    ),
    "a call's own result": (
        [ASK, calling({"name": "stock", "arguments": {}, "result": "2"}), SAY], TOOLS, "the unknown key 'result'"
    ),
    "two names of arguments": (
        [ASK, calling({"name": "stock", "arguments": {}, "parameters": {"item": 1}}), SAY], TOOLS, "both arguments and"
    ),
    "tools by their names": ([ASK, SAY], {"stock": {}}, "is an object, not a list of tools"),
    "an object as content": ([ASK, calling(), {**result(), "content": {"rye": 2}}, SAY], TOOLS, "an object, not text"),
    "a result within its call": ([ASK, calling({**call(), "result": "2"}), SAY], TOOLS, "unknown key 'result'"),
    "a result within its function": (
        [ASK, calling({"function": {"name": "stock", "arguments": {}, "output": "2"}}), SAY], TOOLS, "key 'output'"
    ),
    "arguments under two names that differ": (
        [ASK, calling({"name": "stock", "arguments": {"item": "rye"}, "args": {"item": "oat"}}), result(), SAY],
        TOOLS, "has both arguments and args",
    ),
    "two calls in two keys": (
        [ASK, calling(function_call={"name": "stock", "arguments": {"item": "oat"}}), result(), SAY], TOOLS,
        "both tool_calls and function_call",
    ),
    "two results of a call": ([ASK, calling(), result(), result(), SAY], TOOLS, "two results of the call 'c1'"),
    "a result that is a list": (
        [ASK, calling(), {**result(), "content": [{"rye": 2}]}, SAY], TOOLS, "has no type; it has: rye"
    ),
    "nobody who asks": ([SAY], None, "its turns are assistant: nobody asks"),
    "answers in a row with other flags": (
        [ASK, {**SAY, "weight": 0}, {**SAY, "weight": 1}], None, "two of the assistant in a row"
    ),
    "an unknown key of a call's turn": (
        [ASK, {"role": "tool_call", "content": "{}", "reply_to": 1}, SAY], TOOLS, "the unknown key 'reply_to'"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_would_be_left_out_is_refused_by_name(what: str) -> None:
    messages, tools, words = REFUSED[what]
    with pytest.raises(BadRowError, match=words):
        made(messages, tools)


def test_a_key_that_leaves_a_message_out_of_training_leads_to_the_flag() -> None:
    for key in ("masked", "ignore_loss", "train_detail"):
        with pytest.raises(BadRowError) as caught:
            made([ASK, {**SAY, key: True}])
        assert 'Write "train": false' in caught.value.fix


def test_flags_may_be_texts() -> None:
    messages = made([ASK, {**SAY, "train": "False"}, ASK, {**SAY, "weight": "1"}]).messages
    assert [each.get("train") for each in messages] == [None, False, None, True]


def test_answers_that_are_not_learned_alike_are_not_joined() -> None:
    prompt = {"conversations": "m", "consecutive": "join"}
    with pytest.raises(BadRowError, match="not to learn alike"):
        made([ASK, {**SAY, "weight": 0}, {**SAY, "weight": 1}], prompt=prompt)


def test_a_user_may_speak_after_a_result() -> None:
    roles = [each["role"] for each in made([ASK, calling(), result(), ASK, SAY], TOOLS).messages]
    assert roles == ["user", "assistant", "tool", "user", "assistant"]


@pytest.mark.parametrize(
    "asked",
    [
        {"role": "user", "content": [{"text": "Any rye?"}]},
        {"role": "user", "parts": [{"text": "Any rye?"}]},
        {"role": "user", "content": {"type": "text", "text": "Any rye?"}},
    ],
)
def test_a_text_part_is_the_same_however_it_is_written(asked: dict[str, Any]) -> None:
    assert made([asked, SAY]).messages == [ASK, SAY]


def test_ids_of_calls_can_be_left_out() -> None:
    messages = made([ASK, calling(), result(), SAY], TOOLS, ignore_keys=["id", "tool_call_id"]).messages
    assert "id" not in messages[1]["tool_calls"][0]
    assert "tool_call_id" not in messages[2]


def test_parallel_calls_are_used_with_results_in_any_order() -> None:
    example = made([ASK, calling(call("a"), call("b")), result("b"), result("a"), SAY], TOOLS)
    assert [each["id"] for each in example.messages[1]["tool_calls"]] == ["a", "b"]


def test_a_key_of_a_text_part_that_is_to_be_ignored_is() -> None:
    cached = parts({"type": "text", "text": "Any rye?", "cache_control": {"type": "ephemeral"}})
    assert made([cached, SAY], ignore_keys=["cache_control"]).messages == [ASK, SAY]


CALLED = {"type": "function", "function": {"name": "stock", "arguments": {"item": "rye"}}}
CALL_TEXT = '{"name": "stock", "arguments": {"item": "rye"}}'
CALLING: dict[str, dict[str, Any]] = {
    "text of a turn for calls": {"from": "function_call", "value": CALL_TEXT},
    "name and arguments of such a turn": {"role": "tool_call", "name": "stock", "arguments": {"item": "rye"}},
    "arguments as text": {"role": "tool_call", "name": "stock", "arguments": '{"item": "rye"}'},
    "calls as text": {"role": "assistant", "content": None, "tool_calls": f"[{CALL_TEXT}]"},
    "OpenAI's form before tools": {"role": "assistant", "function_call": {**CALLED["function"]}},
    "Llama's parameters": {"from": "function_call", "value": CALL_TEXT.replace("arguments", "parameters")},
    "parameters of a call": calling({"name": "stock", "parameters": {"item": "rye"}}),
    "nulls of other tools": calling({"function": {"name": "stock", "arguments": {"item": "rye", "day": None}}}),
    "LangChain's form": calling({"name": "stock", "args": {"item": "rye"}, "type": "tool_call"}),
    "Llama's form": calling({"name": "stock", "parameters": {"item": "rye"}}),
    "Anthropic's form": calling({"name": "stock", "input": {"item": "rye"}, "index": 0}),
    "one call that is not in a list": {"role": "assistant", "tool_calls": CALLED},
    "one call in two keys": calling(CALLED, function_call=CALLED["function"]),
    "text of a turn with parameters": {
        "from": "function_call", "value": '{"name": "stock", "parameters": {"item": "rye"}}'
    },
}  # fmt: skip


@pytest.mark.parametrize("how", CALLING)
def test_a_call_is_the_same_however_it_is_written(how: str) -> None:
    properties = {"item": {"type": "string"}}
    tools = [{"name": "stock", "parameters": {"type": "object", "properties": properties}}]
    example = made([ASK, CALLING[how], {"role": "tool", "content": "2"}, SAY], tools)
    assert example.messages[1] == {"role": "assistant", "content": None, "tool_calls": [CALLED]}


def test_the_flag_of_a_turn_for_calls_is_kept() -> None:
    example = made([ASK, {"from": "function_call", "value": CALL_TEXT, "loss": False}, result(""), SAY], TOOLS)
    assert example.messages[1]["train"] is False


def test_a_call_without_arguments_may_have_null() -> None:
    example = made([ASK, calling(call(arguments=None)), result(), SAY], TOOLS)
    assert example.messages[1]["tool_calls"][0]["function"]["arguments"] == {}


TOOL = {"type": "function", "function": {"name": "stock", "parameters": {"properties": {"item": {"type": "string"}}}}}
WRITTEN: dict[str, Any] = {
    "the function itself": TOOL["function"],
    "OpenAI's later form": {"type": "function", **TOOL["function"]},
    "Anthropic's form": {"name": "stock", "input_schema": TOOL["function"]["parameters"]},
    "JSON text": json.dumps(TOOL),
    "MCP's form": {"name": "stock", "inputSchema": TOOL["function"]["parameters"]},
    "nulls of other tools": {
        **TOOL, "function": {"name": "stock", "strict": None, "parameters": {
            "properties": {"item": {"type": "string", "enum": None}, "day": None}}}},
}  # fmt: skip


@pytest.mark.parametrize("how", WRITTEN)
def test_a_tool_is_the_same_however_it_is_written(how: str) -> None:
    assert made([ASK, SAY], [WRITTEN[how]]).tools == [TOOL]


def test_a_tool_need_not_be_in_a_list() -> None:
    assert made([ASK, SAY], TOOL).tools == [TOOL]


def test_keys_of_a_tool_that_no_request_has_can_be_left_out() -> None:
    more = {**TOOL, "function": {**TOOL["function"], "return": {"type": "string"}, "annotations": {"title": "x"}}}
    assert made([ASK, SAY], [more], ignore_keys=["return", "annotations", "name"]).tools == [TOOL]


def test_tools_in_two_columns_are_refused_where_they_differ() -> None:
    section = Dataset.model_validate({"source": "data", "prompt": {"conversations": "m"}})
    row = {"m": [ASK, SAY], "tools": [TOOL], "functions": [{"name": "other"}]}
    with pytest.raises(BadRowError, match="the columns tools and functions, and they differ"):
        make_example(section, "sft", "train")(row, "0", "a:1")


def test_a_default_of_null_is_part_of_a_tool() -> None:
    tool = {"name": "stock", "parameters": {"properties": {"day": {"default": None}}}}
    assert made([ASK, SAY], [tool]).tools == [{"type": "function", "function": tool}]


JOINED: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "calls": (
        [calling(call("a")), calling(call("b"))],
        {"content": None, "tool_calls": [call(each, arguments={"item": "rye"}) for each in ("a", "b")]},
    ),
    "reasoning, a text and a call": (
        [{**SAY, "reasoning_content": "Look."}, calling(call("a"))],
        {"content": "Two.", "reasoning_content": "Look.", "tool_calls": [call("a", arguments={"item": "rye"})]},
    ),
    "texts": ([SAY, SAY], {"content": "Two.\n\nTwo."}),
}  # fmt: skip


@pytest.mark.parametrize("what", JOINED)
def test_answers_in_a_row_are_one_answer_where_the_recipe_joins_them(what: str) -> None:
    turns, expected = JOINED[what]
    prompt = {"conversations": "m", "consecutive": "join"}
    example = made([ASK, *turns, *([result("a"), SAY] if what != "texts" else [])], TOOLS, prompt=prompt)
    assert example.messages[1] == {"role": "assistant", **expected}


@pytest.mark.parametrize(
    "turns",
    [[calling(call("a")), SAY], [SAY, {**SAY, "train": False}], [SAY, {**SAY, "reasoning_content": "Look."}]],
    ids=["a text after a call", "one that is not learned", "reasoning after a text"],
)
def test_answers_in_a_row_that_one_answer_cannot_say_are_not_joined(turns: list[dict[str, Any]]) -> None:
    with pytest.raises(BadRowError, match="cannot be joined"):
        made([ASK, *turns], TOOLS, prompt={"conversations": "m", "consecutive": "join"})


def with_column(column: str, value: Any, **dataset: Any) -> Example:
    section = Dataset.model_validate({"source": "data", "prompt": {"conversations": "m"}, **dataset})
    return make_example(section, "sft", "train")({"m": [ASK, SAY], column: value}, "0", "a:1")


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("weight", 0, "has 0 in its column 'weight', and every row is learned as much as the others"),
        ("weight", 0.5, "has 0.5 in its column 'weight'"),
        ("train", False, "has False in its column 'train'"),
        ("chat_template_kwargs", {"xml_tools": [], "enable_thinking": False}, "has 'enable_thinking' in its column"),
        ("chat_template_kwargs", '{"custom_instructions": "Be brief."}', "has 'custom_instructions' in its column"),
    ],
)
def test_a_column_that_says_how_one_row_is_learned_or_rendered_is_refused_unless_it_is_left_out(
    column: str, value: Any, why: str
) -> None:
    with pytest.raises(BadRowError, match=re.escape(why)) as error:
        with_column(column, value)
    assert f"dataset.ignore_keys=[{column}]" in error.value.fix
    assert with_column(column, value, ignore_keys=[column]).messages == [ASK, SAY]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("weight", 1),
        ("weight", None),
        ("train", "a"),
        ("loss", 0.7),
        ("chat_template_kwargs", {"xml_tools": [], "x": ""}),
    ],
)
def test_a_column_that_says_nothing_of_that_is_a_column(column: str, value: Any) -> None:
    assert with_column(column, value).columns[column] == value
