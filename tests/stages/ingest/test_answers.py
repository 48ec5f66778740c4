"""Rows with tools and reasoning are refused before training where their answers could not be read."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runner.errors import RunnerError
from stages.data.example import Example, Message, write_examples
from stages.ingest.answers import check_answers, needs_reading
from stages.ingest.parsers_needed import check_needed
from stages.sections.recipe import Recipe
from tests.stages.models.families import save_model

TOOL = {"type": "function", "function": {"name": "stock", "parameters": {"type": "object"}}}
ASKED: Message = {"role": "user", "content": "Any rye left?"}
CALL: Message = {
    "role": "assistant",
    "content": "Let me look.",
    "tool_calls": [{"type": "function", "function": {"name": "stock", "arguments": {"item": "rye"}}}],
}
THOUGHT: Message = {"role": "assistant", "content": "Two.", "reasoning_content": "Count them."}
WRITTEN_THOUGHT: Message = {"role": "assistant", "content": "<think>\nCount them.\n</think>\n\nTwo."}
CALLED = Example("1", [ASKED, CALL], tools=[TOOL], source="train.jsonl:1")


def recipe_of(pipeline: list[str] | None = None, **model: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "pipeline": pipeline or ["ingest", "train", "publish", "infer", "evaluate", "serve"],
            "model": {"source": "org/tiny", **model},
            "dataset": {"source": "data", "prompt": {"conversations": "messages"}},
            "serve": {"model_id": "base"},
        }
    )


def test_tools_need_a_parser_where_the_recipe_asks() -> None:
    with pytest.raises(RunnerError, match=r"train\.jsonl:1: the row has tools, and model\.tool_parser names no parser"):
        check_needed(recipe_of(), CALLED)
    check_needed(recipe_of(["ingest", "train"]), CALLED)
    check_needed(recipe_of(tool_parser="hermes"), CALLED)


def test_a_call_without_tools_is_refused_because_no_request_would_get_it() -> None:
    with pytest.raises(RunnerError, match="the answer calls 'stock' and the row has no tools"):
        check_needed(recipe_of(tool_parser="hermes"), Example("1", [ASKED, CALL]))


@pytest.mark.parametrize("answer", [THOUGHT, WRITTEN_THOUGHT])
def test_reasoning_that_is_learned_and_not_scored_is_not_served_within_the_answer(answer: Message) -> None:
    example = Example("1", [ASKED, answer])
    with pytest.raises(RunnerError, match="scored without it and would be served with it") as caught:
        check_needed(recipe_of(), example)
    assert "model.reasoning_parser" in caught.value.hint
    check_needed(recipe_of(reasoning_parser="qwen3"), example)
    check_needed(recipe_of(["ingest", "train", "infer", "evaluate"]), example)


@pytest.mark.environment("engine")
@pytest.mark.parametrize(
    ("family", "model", "example"),
    [
        ("base", {"chat_template": "chatml", "tool_parser": "hermes"}, CALLED),
        ("hermes", {"tool_parser": "hermes"}, CALLED),  # its template writes a call as JSON whole
        ("qwen3", {"reasoning_parser": "qwen3"}, Example("1", [ASKED, THOUGHT])),
        ("deepseek-r1", {"reasoning_parser": "deepseek_r1"}, Example("1", [ASKED, THOUGHT])),
        ("chatml", {"reasoning_parser": "qwen3"}, Example("1", [ASKED, WRITTEN_THOUGHT])),
        (
            "qwen3",
            {"reasoning_parser": "qwen3", "chat_template_kwargs": {"enable_thinking": False}},
            Example("1", [ASKED, {"role": "assistant", "content": "Two."}]),
        ),
    ],
)
def test_learned_answers_are_read_back_as_the_rows_have_them(
    family: str, model: dict[str, Any], example: Example, tmp_path: Path
) -> None:
    folder = save_model(family, tmp_path / "model")
    write_examples(tmp_path / "train.jsonl", [example])
    recipe = recipe_of(source=str(folder), **model)
    assert needs_reading(recipe)
    assert check_answers(recipe, str(folder), [str(tmp_path / "train.jsonl")]) == 1


@pytest.mark.environment("engine")
@pytest.mark.parametrize(
    ("family", "model", "example", "what"),
    [
        ("base", {"chat_template": "chatml", "tool_parser": "qwen3_coder"}, CALLED, "the calls of the row's answer"),
        (
            "qwen3",
            {"reasoning_parser": "deepseek_r1", "chat_template_kwargs": {"enable_thinking": False}},
            Example("1", [ASKED, {"role": "assistant", "content": "Two."}]),
            "the content of the row's answer would be '' and not 'Two.'",
        ),
    ],
)
def test_a_parser_that_reads_the_answers_otherwise_is_refused_before_training(
    family: str, model: dict[str, Any], example: Example, what: str, tmp_path: Path
) -> None:
    folder = save_model(family, tmp_path / "model")
    write_examples(tmp_path / "train.jsonl", [example])
    with pytest.raises(RunnerError, match="read by model") as caught:
        check_answers(recipe_of(source=str(folder), **model), str(folder), [str(tmp_path / "train.jsonl")])
    assert what in caught.value.message


@pytest.mark.environment("engine")
def test_an_answer_that_a_parser_reads_otherwise_when_it_is_streamed_is_refused(tmp_path: Path) -> None:
    """olmo3 takes a streamed answer without a thought for a thought."""
    from transformers import AutoTokenizer

    folder = save_model("base", tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["Ġ</", "</", "think", ">"])  # which the parser looks for
    tokenizer.save_pretrained(folder)
    model = {"source": str(folder), "chat_template": "chatml", "reasoning_parser": "olmo3"}
    thought: Message = {"role": "assistant", "content": "<think>Count them.</think>Two, naïve."}
    plain: Message = {"role": "assistant", "content": "Two."}
    for message, pipeline, refused in (
        (thought, None, False),
        (plain, None, True),
        (plain, ["ingest", "train", "publish", "infer", "evaluate"], False),
    ):
        write_examples(tmp_path / "train.jsonl", [Example("1", [ASKED, message], source="train.jsonl:1")])
        check = partial(check_answers, recipe_of(pipeline, **model), str(folder), [str(tmp_path / "train.jsonl")])
        if refused:
            with pytest.raises(
                RunnerError, match=r"1: streamed, and read by .*olmo3, the content .* '' and not 'Two\.'"
            ):
                check()
        else:
            assert check() == 1


@pytest.mark.environment("engine")
def test_characters_of_several_tokens_are_streamed_with_the_last_of_them() -> None:
    from stages.engines.vllm.answers.reader import text_deltas
    from tests.stages.models.families import tokenizer_of

    tokenizer = tokenizer_of("chatml")
    ids = tokenizer("aß€<|im_end|>b", add_special_tokens=False)["input_ids"]
    deltas = list(text_deltas(tokenizer, ids, skip_special=True))
    assert [text for text, _ in deltas] == ["a", "ß", "€", "b"]
    assert [token for _, tokens in deltas for token in tokens] == ids
