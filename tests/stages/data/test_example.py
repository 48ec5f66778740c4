from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.errors import RunnerError
from stages.data.example import BadRowError, Example, Message, read_examples, text_of, write_examples
from stages.data.messages import check_message

ASK: Message = {"role": "user", "content": "Hi"}
SAY: Message = {"role": "assistant", "content": "Hello"}


def test_an_example_is_written_as_a_line_and_read_back_whole(tmp_path: Path) -> None:
    examples = [
        Example("train-0", [ASK, SAY], columns={"n": 1, "x": [None]}, source="train.jsonl:1"),
        Example("train-1", [ASK], chosen=[SAY], rejected=[{**SAY, "content": "Go"}], tools=[{"type": "function"}]),
        Example("train-2", [ASK, SAY], label=False, images=["a.png"]),
        Example("train-3", text="Once\u2028upon\u2029a\x85time\nthere"),
    ]
    assert write_examples(tmp_path / "x.jsonl", examples) == 4
    assert list(read_examples(tmp_path / "x.jsonl")) == examples
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == 4


def test_a_line_that_is_not_an_example_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"instruction": "old"}\n')
    with pytest.raises(RunnerError, match=r"x\.jsonl:1 is not an example"):
        list(read_examples(tmp_path / "x.jsonl"))


def test_prompt_and_answer_are_the_two_parts_of_a_conversation() -> None:
    example = Example("a", [ASK, SAY])
    assert (example.prompt, example.answer, example.reference) == ([ASK], SAY, "Hello")


def test_the_answer_of_a_preference_pair_is_the_chosen_one() -> None:
    example = Example("a", [ASK, SAY, ASK], chosen=[SAY], rejected=[ASK])
    assert (example.prompt, example.answer) == ([ASK, SAY, ASK], SAY)


def test_a_text_has_no_answer() -> None:
    assert (Example("a", text="Once").answer, Example("a", text="Once").reference) == (None, "")


@pytest.mark.parametrize(
    ("value", "role"),
    [("human", "user"), ("User", "user"), ("developer", "system"), ("model", "assistant"), ("observation", "tool")],
)
def test_every_spelling_of_a_role_is_known(value: str, role: str) -> None:
    assert check_message({"from": value, "value": "x"}, "message 1") == {"role": role, "content": "x"}


def test_parts_that_are_all_text_become_text() -> None:
    parts = [{"type": "text", "text": "a"}, "b"]
    assert check_message({"role": "user", "content": parts}, "m") == {"role": "user", "content": "ab"}
    image = {"type": "image_url", "image_url": {"url": "a.png"}}
    kept = check_message({"role": "user", "content": [*parts, image]}, "m")
    assert kept["content"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, image]
    assert text_of(kept) == "ab"


def test_calls_reasoning_names_and_flags_are_kept() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    value = {"role": "assistant", "content": None, "tool_calls": [call], "reasoning": "hm", "weight": 0, "name": "x"}
    assert check_message(value, "m") == {
        "role": "assistant", "content": None, "name": "x", "reasoning_content": "hm", "train": False,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}],
    }  # fmt: skip
    as_text = {"from": "function_call", "value": '{"name": "f", "arguments": {"a": 1}}'}
    assert check_message(as_text, "m")["tool_calls"][0]["function"] == {"name": "f", "arguments": {"a": 1}}
    assert check_message({"role": "tool", "content": "5", "tool_call_id": "c1"}, "m")["tool_call_id"] == "c1"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("hello", "is text, not an object"),
        ({"role": "user"}, "has no content"),
        ({"role": "narrator", "content": "x"}, "has the role 'narrator'"),
        ({"role": "user", "content": 5}, "is a number, not text"),
        ({"role": "user", "content": "x", "wieght": 1}, "has the unknown key 'wieght'"),
        ({"role": "assistant", "content": "x", "weight": 0.5}, "weight of m is 0.5"),
        ({"role": "assistant", "content": "x", "weight": 1, "train": False}, "contradict"),
        ({"role": "user", "content": [{"type": "hologram"}]}, "unknown type 'hologram'"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}, "not JSON"),
        ({"role": "user", "content": "x", "tool_calls": [{"function": {"name": "f"}}]}, "only an assistant's"),
    ],
)
def test_what_a_message_cannot_have_is_refused(value: Any, words: str) -> None:
    with pytest.raises(BadRowError, match=words):
        check_message(value, "m")


def test_an_unknown_key_can_be_ignored_by_name() -> None:
    assert check_message({"role": "user", "content": "x", "ts": 5}, "m", ignore=["ts"]) == {
        "role": "user",
        "content": "x",
    }
