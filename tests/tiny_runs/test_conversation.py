"""Tools, reasoning and the rest of a conversation, from rows to an endpoint whose answers are those of batch inference:
a tiny model, real parts."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.stages.models.families import save_model
from tests.tiny_runs.tiny_run import run, write_rows

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.filterwarnings("default")]

TOOLS = [{"type": "function", "function": {"name": "stock", "parameters": {"type": "object", "properties": {}}}}]
ITEMS = ("rye", "oat")
STEPS = 150
# Ends turns otherwise than the tokenizer does, and writes calls as Hermes does, in few tokens.
TEMPLATE = """{%- if tools %}
{{- '<|im_start|>system\\n' + (tools | map(attribute='function.name') | join(', ')) + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content }}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>' + ({'name': call.function.name, 'arguments': call.function.arguments} | tojson) + '</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}"""


def called(item: str) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": "stock", "arguments": {"item": item}}}
    return {
        "messages": [{"role": "user", "content": item}, {"role": "assistant", "content": None, "tool_calls": [call]}],
        "tools": TOOLS,
    }


def learn(folder: Path, family: str, rows: list[Any], *overrides: str, test: list[Any] | None = None) -> dict[str, Any]:
    """The summary of a whole run over a few rows, each of them many times."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_model(family, folder / "model", spread=0.2)
    write_rows(folder, rows, times=40, test=test)
    return run(folder, f"train.args.max_steps={STEPS}", "infer.sampling.max_tokens=100", *overrides)


def talk(*texts: str, **answer: Any) -> dict[str, Any]:
    """A row of questions and answers in turn. answer: more of the last message."""
    roles = ("user", "assistant")
    messages: list[dict[str, Any]] = [{"role": roles[at % 2], "content": text} for at, text in enumerate(texts)]
    messages[-1] |= answer
    return {"messages": messages}


def answers(summary: dict[str, Any]) -> list[Any]:
    """(text, reasoning) of the endpoint's answers, which are those of batch inference."""
    assert summary["query"]["matches_batch"] is True
    return [(line["tuned"]["text"], line["tuned"].get("reasoning")) for line in summary["query"]["rows"]]


def test_calls_are_learned_and_the_endpoint_gives_those_of_batch_inference(tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(TEMPLATE, encoding="utf-8")
    summary = learn(
        tmp_path, "base", [*map(called, ITEMS)], f"model.chat_template={tmp_path}/own.jinja",
        "model.tool_parser=hermes", "evaluate.metrics=[exact_match,calls_match,call_names,call_arguments]",
    )  # fmt: skip
    scores, query = summary["scores"]["tuned"], summary["query"]
    assert scores["call_names"] == 1.0
    assert scores["calls_match"] == scores["exact_match"] == 1.0
    assert query["matches_batch"] is True
    assert [line["tuned"]["calls"] for line in query["rows"]] == [
        [{"name": "stock", "arguments": {"item": item}}] for item in ITEMS
    ]
    assert {line["tuned"]["finish_reason"] for line in query["rows"]} == {"tool_calls"}


@pytest.mark.chaos
def test_reasoning_is_learned_and_answers_are_scored_without_it(tmp_path: Path) -> None:
    rows = [talk(item, f"{item}!", reasoning_content=f"so {item}") for item in ITEMS]
    summary = learn(tmp_path, "qwen3", rows, "model.reasoning_parser=qwen3", "evaluate.reasoning=strip")
    assert summary["scores"]["tuned"]["exact_match"] == 1.0
    assert [(text, (thought or "").strip()) for text, thought in answers(summary)] == [
        (f"{item}!", f"so {item}") for item in ITEMS
    ]


@pytest.mark.chaos
def test_without_thinking_the_answer_alone_is_learned_and_given(tmp_path: Path) -> None:
    rows = [talk(item, f"{item}!") for item in ITEMS]
    summary = learn(tmp_path, "qwen3", rows, "model.chat_template_kwargs={enable_thinking: false}")
    assert summary["scores"]["tuned"]["exact_match"] == 1.0
    assert answers(summary) == [(f"{item}!", None) for item in ITEMS]


@pytest.mark.chaos
def test_an_answer_of_weight_0_is_read_and_not_learned(tmp_path: Path) -> None:
    rows = [talk(item, "no", "again", f"{item}!") for item in ITEMS]
    for row in rows:
        row["messages"][1]["weight"] = 0
    asked_first = [talk(item, "no") for item in ITEMS]
    summary = learn(tmp_path, "chatml", rows, "query.num_rows=4", test=[*rows, *asked_first])
    assert summary["scores"]["tuned"]["exact_match"] == 0.5
    given = [text for text, _ in answers(summary)]
    assert given[:2] == [f"{item}!" for item in ITEMS]
    assert "no" not in given[2:]


@pytest.mark.chaos
def test_a_preferred_answer_after_a_system_message_is_learned_and_given(tmp_path: Path) -> None:
    """Preferences with the loss of the preferred answer added, since a random model answers neither."""
    rows = []
    for item in ITEMS:
        asked = [{"role": "system", "content": "Be loud."}, {"role": "user", "content": item}]
        answers_of = {"chosen": f"{item}!", "rejected": f"{item}?"}
        rows.append({name: [*asked, {"role": "assistant", "content": text}] for name, text in answers_of.items()})
    summary = learn(
        tmp_path, "chatml", rows, "train.stage=dpo", "+train.args.pref_ftx=1.0", "dataset.prompt.conversations=chosen",
    )  # fmt: skip
    assert summary["scores"]["tuned"]["exact_match"] == 1.0
    assert answers(summary) == [(f"{item}!", None) for item in ITEMS]
