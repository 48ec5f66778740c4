"""Conversations of other interfaces, whose calls, results and reasoning are blocks or items: used, or refused."""

from __future__ import annotations

from typing import Any

import pytest

from stages.data.example import BadRowError
from tests.stages.data.shapes.test_kinds_of_messages import TOOLS, made

ANSWERED = {"role": "assistant", "content": "Two."}
FUNCTION = {"name": "stock", "arguments": {"item": "rye"}}
SIGNED = {"signature": "c2ln"}


def use(**more: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": "t1", "name": "stock", "input": {"item": "rye"}, **more}


def result(**more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "t1", "content": "2", **more}


def asked(*answer: Any, then: Any = None, **keys: Any) -> list[dict[str, Any]]:
    """A question, the assistant's blocks, and the blocks of the next turn."""
    turn = {"role": "user", "content": [result()] if then is None else then, **keys}
    return [{"role": "user", "content": "Any rye?"}, {"role": "assistant", "content": list(answer)}, turn, ANSWERED]


THINKING = {"type": "thinking", "thinking": "Look.", **SIGNED}
TEXT = {"type": "text", "text": "I look."}
ANTHROPIC = asked(THINKING, TEXT, use(), then=[result(content=[{"type": "text", "text": "2"}]), "And?"])
GEMINI = [
    {"role": "user", "parts": [{"text": "Any rye?"}]},
    {
        "role": "model",
        "parts": [
            {"text": "Look.", "thought": True},
            {"text": "I look.", "thoughtSignature": "c2ln"},
            {"functionCall": {"id": "t1", "name": "stock", "args": {"item": "rye"}}, "thoughtSignature": "c2ln"},
        ],
    },
    {"role": "user", "parts": [{"functionResponse": {"id": "t1", "response": {"n": 2}}}, {"text": "And?"}]},
    {"role": "model", "parts": [{"text": "Two."}]},
]
BEDROCK = [
    {"role": "user", "content": [{"text": "Any rye?"}]},
    {
        "role": "assistant",
        "content": [
            {"reasoningContent": {"reasoningText": {"text": "Look.", **SIGNED}}},
            {"text": "I look."},
            {"toolUse": {"toolUseId": "t1", "name": "stock", "input": {"item": "rye"}}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"toolResult": {"toolUseId": "t1", "content": [{"json": {"n": 2}}], "status": "success"}},
            {"text": "And?"},
        ],
    },
    {"role": "assistant", "content": [{"text": "Two."}]},
]


@pytest.mark.parametrize(
    ("messages", "found"), [(ANTHROPIC, "2"), (GEMINI, '{"n": 2}'), (BEDROCK, '{"n": 2}')], ids=["a", "g", "b"]
)
def test_calls_results_and_reasoning_are_those_of_openai_s_form(messages: list[dict[str, Any]], found: str) -> None:
    assert made(messages, TOOLS).messages == [
        {"role": "user", "content": "Any rye?"},
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [{"id": "t1", "type": "function", "function": FUNCTION}],
            "reasoning_content": "Look.",
        },
        {"role": "tool", "content": found, "tool_call_id": "t1"},
        {"role": "user", "content": "And?"},
        ANSWERED,
    ]


def test_items_of_responses_are_messages() -> None:
    items = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Any rye?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": None},
        {"type": "function_call", "id": "fc_1", "call_id": "t1", "name": "stock", "arguments": '{"item": "rye"}'},
        {"type": "function_call", "id": "fc_2", "call_id": "t2", "name": "stock", "arguments": '{"item": "oat"}'},
        {"type": "function_call_output", "id": "fo_1", "call_id": "t1", "output": "2", "status": "completed"},
        {"type": "function_call_output", "call_id": "t2", "output": "0"},
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Two.", "annotations": []}],
        },
    ]
    messages = made(items, TOOLS).messages
    assert [each["role"] for each in messages] == ["user", "assistant", "tool", "tool", "assistant"]
    assert [(each["id"], each["function"]["arguments"]["item"]) for each in messages[1]["tool_calls"]] == [
        ("t1", "rye"),
        ("t2", "oat"),
    ]
    assert [each.get("tool_call_id") for each in messages] == [None, None, "t1", "t2", None]


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        (asked(use(), TEXT), "message 2 of column 'm' has a text after a call"),
        (asked(TEXT, THINKING, use()), "has reasoning after a text"),
        (asked(result()), "has a result of a call, and its role is assistant"),
        (asked(use(), then=[TEXT, result()]), "message 3 of column 'm' has a result of a call after a text"),
        (asked(use(), then=[use()]), "has a call, and no assistant's role"),
        (asked(use(), then=[result(is_error=True)]), "marked as an error"),
        (asked(use(), then=[result(cache_control={"type": "ephemeral"})]), "unknown key 'cache_control'"),
        (asked(use(cache_control={"type": "ephemeral"})), "unknown key 'cache_control'"),
        (asked({**THINKING, "budget": 3}, use()), "unknown key 'budget'"),
        (asked({"type": "redacted_thinking", "data": "c2ln"}, use()), "unknown type 'redacted_thinking'"),
        (asked({"type": "server_tool_use", "id": "t1", "name": "stock", "input": {}}), "type 'server_tool_use'"),
        (asked(use(), then=[result(tool_use_id="t9")]), "the result of a call 't9'"),
        (asked(use(), then=[result()], mood="kind"), "unknown key 'mood'"),
        (asked(use(name=3)), "no function with a name"),
        (
            [{"role": "user", "content": "?"}, {"type": "reasoning", "summary": [{"text": "Hm."}]}, ANSWERED],
            "a summary of reasoning",
        ),
    ],
)
def test_what_that_form_cannot_have_is_refused(messages: list[dict[str, Any]], why: str) -> None:
    with pytest.raises(BadRowError) as error:
        made(messages, TOOLS)
    assert why in str(error.value)


def test_marks_that_the_recipe_leaves_out_are_left_out() -> None:
    then = [result(is_error=True, cache_control={"type": "ephemeral"})]
    assert made(asked(use(), then=then), TOOLS, ignore_keys=["is_error", "cache_control"]).messages[2] == {
        "role": "tool",
        "content": "2",
        "tool_call_id": "t1",
    }
    failed = [{"role": "user", "content": [{"toolResult": {"toolUseId": "t1", "content": [], "status": "error"}}]}]
    messages = [*BEDROCK[:2], *failed, ANSWERED]
    with pytest.raises(BadRowError, match="marked as an error"):
        made(messages, TOOLS)
    assert made(messages, TOOLS, ignore_keys=["status"]).messages[2]["role"] == "tool"


def test_tools_as_gemini_and_bedrock_declare_them() -> None:
    schema = {"type": "object", "properties": {"type": {"type": "string", "enum": ["STRING"]}}}
    declared = {
        "name": "stock",
        "parameters": {"type": "OBJECT", "properties": {"type": {"type": "STRING", "enum": ["STRING"]}}},
    }
    expected = [{"type": "function", "function": {"name": "stock", "parameters": schema}}]
    for tools in (
        [{"functionDeclarations": [declared]}],
        {"functionDeclarations": [declared]},
        [{"toolSpec": {"name": "stock", "inputSchema": {"json": schema}}}],
    ):
        assert made(asked(use()), tools).tools == expected
