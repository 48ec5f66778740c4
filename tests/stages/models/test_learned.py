"""What training learns is what a request asks, for every family's template; what a template drops is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stages.models.chat_template import ChatTemplate
from stages.models.endpoint_form import RefusedRowError, rendered_messages, sent_messages
from stages.models.learned import NO_LOSS, Sample, asked_ids, learned
from tests.stages.models.families import sentencepiece_like, tokenizer_of

pytestmark = pytest.mark.environment("llamafactory")

Messages = list[dict[str, Any]]
ASKED: Messages = [{"role": "user", "content": "Open?"}, {"role": "assistant", "content": "At eight."}]
TALK: Messages = [*ASKED, {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes."}]
SYSTEM: Messages = [{"role": "system", "content": "Be brief."}]
THOUGHT: Messages = [ASKED[0], {**ASKED[1], "reasoning_content": "Bakers rise early."}]
TOOLS = [{"type": "function", "function": {"name": "stock", "parameters": {"type": "object"}}}]
CALL = {"id": "c1", "type": "function", "function": {"name": "stock", "arguments": '{"item": "rye"}'}}
CALLED: Messages = [
    {"role": "user", "content": "Any rye left?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "2"},
    {"role": "assistant", "content": "Two loaves."},
]


def template_of(family: str, chosen: str | None = None, **kwargs: Any) -> ChatTemplate:
    return ChatTemplate(tokenizer_of(family), chosen, kwargs)


def spans(template: ChatTemplate, sample: Sample) -> list[str]:
    """The texts that carry loss, one after the other."""
    found, before = [], NO_LOSS
    for label in sample.labels:
        if label != NO_LOSS:
            if before == NO_LOSS:
                found.append([])
            found[-1].append(label)
        before = label
    return [template.tokenizer.decode(ids) for ids in found]


EQUAL = [
    ("chatml", {}), ("llama3.1", {"date_string": "26 Jul 2024"}), ("qwen3", {"enable_thinking": False}), ("gemma", {}),
    ("mistral", {}), ("generation marks", {}),
]  # fmt: skip


@pytest.mark.parametrize(("family", "kwargs"), EQUAL)
def test_every_learned_answer_follows_the_very_tokens_of_its_request(family: str, kwargs: dict[str, Any]) -> None:
    template = template_of(family, **kwargs)
    samples = learned(template, TALK)
    last = samples[-1]
    assert last.ids[: last.answer_at] == asked_ids(template, TALK[:-1], None)
    assert template.tokenizer.decode(last.ids[last.answer_at :]).lstrip(" ").startswith("Yes.")
    first = samples[0]
    asked = asked_ids(template, TALK[:1], None)
    assert first.ids[: len(asked)] == asked
    assert first.labels[: len(asked)] == [NO_LOSS] * len(asked)
    assert sum(len(spans(template, sample)) for sample in samples) == 2


def test_turns_share_a_sample_where_the_template_only_appends() -> None:
    template = template_of("chatml")
    (sample,) = learned(template, TALK)
    assert spans(template, sample) == ["At eight.<|im_end|>\n", "Yes.<|im_end|>\n"]


def test_turns_are_samples_of_their_own_where_the_template_renders_earlier_turns_otherwise() -> None:
    template = template_of("qwen3", enable_thinking=False)
    samples = learned(template, TALK)
    assert [spans(template, sample) for sample in samples] == [["At eight.<|im_end|>\n"], ["Yes.<|im_end|>\n"]]
    text = template.tokenizer.decode(samples[1].ids)
    assert text.count("<think>") == 1


def test_an_empty_think_block_before_the_answer_is_refused_with_the_key_that_moves_it() -> None:
    with pytest.raises(RefusedRowError, match=r"writes '<think>.*before the row's answer") as caught:
        learned(template_of("qwen3"), ASKED)
    assert "enable_thinking=false" in caught.value.hint


def test_reasoning_is_learned_before_the_answer() -> None:
    template = template_of("qwen3")
    (sample,) = learned(template, THOUGHT)
    assert spans(template, sample) == ["<think>\nBakers rise early.\n</think>\n\nAt eight.<|im_end|>\n"]


@pytest.mark.parametrize("family", ["qwen3", "deepseek-r1"])
def test_a_think_block_in_the_answers_text_is_its_reasoning(family: str) -> None:
    rows = [ASKED[0], {"role": "assistant", "content": "<think>\nBakers rise early.\n</think>\n\nAt eight."}]
    assert learned(template_of(family), rows) == learned(template_of(family), THOUGHT)


def test_reasoning_continues_the_thought_that_a_request_begins() -> None:
    template = template_of("deepseek-r1")
    (sample,) = learned(template, THOUGHT)
    assert template.tokenizer.decode(sample.ids[: sample.answer_at]).endswith("<|Assistant|><think>\n")
    assert spans(template, sample) == ["Bakers rise early.\n</think>\n\nAt eight.<|eos|>"]


def test_an_answer_without_a_thought_is_refused_where_a_request_begins_one() -> None:
    with pytest.raises(RefusedRowError, match="ends inside a thought"):
        learned(template_of("deepseek-r1"), ASKED)


def test_reasoning_is_stripped_where_the_recipe_says_so() -> None:
    template = template_of("chatml")
    assert learned(template, THOUGHT, reasoning="strip") == learned(template, ASKED)


def test_reasoning_that_the_template_does_not_write_is_refused() -> None:
    with pytest.raises(RefusedRowError, match="reasoning_content") as caught:
        learned(template_of("chatml"), THOUGHT)
    assert "train.reasoning=strip" in caught.value.hint


def test_a_message_that_is_not_to_be_learned_carries_no_loss() -> None:
    template = template_of("chatml")
    (sample,) = learned(template, [TALK[0], {**TALK[1], "train": False}, *TALK[2:]])
    assert spans(template, sample) == ["Yes.<|im_end|>\n"]
    (sample,) = learned(template, [*TALK[:3], {**TALK[3], "train": False}])
    assert spans(template, sample) == ["At eight.<|im_end|>\n"]
    assert learned(template, [{**ASKED[0]}, {**ASKED[1], "train": False}]) == []


def test_only_the_last_answer_is_learned_where_the_history_is_masked_unless_a_flag_says_otherwise() -> None:
    template = template_of("chatml")
    (sample,) = learned(template, TALK, last_only=True)
    assert spans(template, sample) == ["Yes.<|im_end|>\n"]
    (sample,) = learned(template, [TALK[0], {**TALK[1], "train": True}, *TALK[2:]], last_only=True)
    assert len(spans(template, sample)) == 2


def test_tools_calls_and_results_are_rendered_and_calls_are_learned() -> None:
    template = template_of("base", "chatml")
    (sample,) = learned(template, CALLED, TOOLS)
    call, answer = spans(template, sample)
    assert call == '<tool_call>\n{"name": "stock", "arguments": {"item": "rye"}}\n</tool_call><|im_end|>\n'
    assert answer == "Two loaves.<|im_end|>\n"
    assert '"name": "stock"' in template.tokenizer.decode(sample.ids).partition("user\n")[0]


def test_text_next_to_a_call_is_learned_with_it() -> None:
    template = template_of("base", "chatml")
    (sample,) = learned(template, [CALLED[0], {**CALLED[1], "content": "Let me look."}], TOOLS)
    (answer,) = spans(template, sample)
    assert answer.startswith("Let me look.\n<tool_call>\n")


@pytest.mark.parametrize(
    ("messages", "tools", "what"),
    [
        (CALLED, TOOLS, "tool"),
        (CALLED, None, "tool call 'stock'"),
        (ASKED, TOOLS, "tool 'stock'"),
        ([{**ASKED[0], "name": "Ann"}, ASKED[1]], None, "name 'Ann'"),
        ([{**ASKED[0], "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, ASKED[1]], None, "image_url"),
        ([{**ASKED[0], "mood": "sad"}, ASKED[1]], None, "'mood'"),
    ],
)
def test_what_a_template_drops_is_refused_by_name(messages: Messages, tools: Any, what: str) -> None:
    with pytest.raises(RefusedRowError, match=what):
        learned(template_of("chatml"), messages, tools)


def test_a_message_that_the_template_drops_is_refused() -> None:
    silent = (
        "{% for m in messages if m.role != 'system' %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    with pytest.raises(RefusedRowError, match=r"drops or changes message 1, the system's: 'Be brief\.'"):
        learned(template_of("base", silent), [*SYSTEM, *ASKED])


def test_a_system_message_that_the_template_refuses_is_told_in_its_own_words() -> None:
    with pytest.raises(RefusedRowError, match="takes no system message: 'System role not supported'") as caught:
        learned(template_of("gemma"), [*SYSTEM, *ASKED])
    assert "dataset.prompt.system=null" in caught.value.hint


def test_turns_out_of_order_are_refused_in_the_templates_words() -> None:
    with pytest.raises(RefusedRowError, match="roles must alternate"):
        learned(template_of("mistral"), [ASKED[0], *ASKED])


@pytest.mark.parametrize(("family", "trimmed"), [("gemma", True), ("mistral", True), ("chatml", False)])
def test_a_template_that_trims_answers_is_noticed(family: str, trimmed: bool) -> None:
    rows = [ASKED[0], {"role": "assistant", "content": " At eight. "}]
    (sample,) = learned(template_of(family), rows)
    assert sample.trimmed is trimmed


def test_the_end_that_only_a_finished_conversation_has_is_learned_with_the_answer() -> None:
    template = template_of("phi")
    (sample,) = learned(template, ASKED)
    assert spans(template, sample) == ["At eight.<|end|>\n<|endoftext|>"]
    assert len(learned(template, TALK)) == 2


def test_prompts_carry_loss_where_the_recipe_says_so() -> None:
    (sample,) = learned(template_of("chatml"), ASKED, on_prompt=True)
    assert sample.labels == sample.ids


_PLAIN = (
    "{% for m in messages %}{{ m.role }}:\n{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}assistant:\n{% endif %}"
)
_INST = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("older", [True, False])
@pytest.mark.parametrize("text", [_PLAIN, _INST])
def test_an_answer_begins_with_the_tokens_that_it_has_after_its_prompt(text: str, older: bool) -> None:
    template = ChatTemplate(sentencepiece_like(text, older=older))
    (sample,) = learned(template, TALK)
    assert sample.ids == template.ids(template.text(template.messages(TALK), None, ask=False))


_IDS = (
    "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.id }} {% endfor %}{% if m.role == 'tool' %}"
    "{{ m.tool_call_id }}:{% endif %}{{ m.content }};{% endfor %}"
)


def test_calls_and_results_without_ids_are_numbered_and_go_together() -> None:
    call = {"function": {"name": "stock", "arguments": {}}}
    calls = [call, {**call, "id": "own"}, call]
    asking = {"role": "assistant", "content": None, "tool_calls": calls}
    talk = [ASKED[0], asking, *({"role": "tool", "content": each} for each in "abc")]
    template = ChatTemplate(tokenizer_of("chatml"), _IDS)
    text = template.text(template.messages(talk), None, ask=True)
    assert text == "Open?;call00001 own call00003 ;call00001:a;own:b;call00003:c;"
    sent = sent_messages(talk)
    assert [each["id"] for each in sent[1]["tool_calls"]] == ["call00001", "own", "call00003"]
    assert template.text(template.messages(sent), None, ask=True) == text


def test_an_empty_think_block_of_the_rows_own_is_learned() -> None:
    answer = {"role": "assistant", "content": "<think>\n\n</think>\n\nAt eight."}
    template = template_of("qwen3")
    (sample,) = learned(template, [ASKED[0], answer])
    assert spans(template, sample) == ["<think>\n\n</think>\n\nAt eight.<|im_end|>\n"]


_RESPONSE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|><|endoftext|>{{ m.content }}<|im_end|>"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}"
)


def test_special_tokens_before_an_answer_are_learned_because_no_client_sees_them() -> None:
    template = template_of("chatml", _RESPONSE)
    (sample,) = learned(template, ASKED)
    assert spans(template, sample) == ["<|endoftext|>At eight.<|im_end|>"]
    with pytest.raises(RefusedRowError, match="before the row's answer"):
        learned(template_of("chatml", _RESPONSE.replace("<|endoftext|>", "final ")), ASKED)


def test_arguments_that_a_template_wants_as_a_text_are_refused() -> None:
    text = (
        "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}"
        "{{ c.function.name }}{{ c.function.arguments }}{% endfor %}</s>{% endfor %}"
    )
    with pytest.raises(RefusedRowError, match="as Python does, "):
        learned(template_of("chatml", text), CALLED[:2])
    added = text.replace(
        "{{ c.function.name }}{{ c.function.arguments }}", "{{ c.function.name + c.function.arguments }}"
    )
    with pytest.raises(RefusedRowError, match="wants the arguments of calls as a text"):
        learned(template_of("chatml", added), CALLED[:2])


def test_a_message_that_is_not_to_be_learned_contradicts_prompts_that_are() -> None:
    with pytest.raises(RefusedRowError, match="train_on_prompt learns them all"):
        learned(template_of("chatml"), [ASKED[0], {**ASKED[1], "train": False}, *TALK[2:]], on_prompt=True)


def test_a_template_that_reads_parts_alone_is_given_parts_and_one_that_reads_both_texts() -> None:
    parts = (
        "{% for m in messages %}<|im_start|>{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for part in m.content %}{{ part.text }}{% endfor %}<|im_end|>{% endif %}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>{% endif %}"
    )
    alone = parts.replace("m.content is string", "false")
    (both,), (only,) = (learned(template_of("chatml", text), ASKED) for text in (parts, alone))
    decoded = [tokenizer_of("chatml").decode(each.ids) for each in (both, only)]
    assert decoded[1] == decoded[0].replace("<|im_end|>", "<|im_end|>" * 2)


def test_a_template_that_reads_parts_alone_has_a_tool_s_result_as_vllm_gives_it() -> None:
    template = template_of("parts")
    assert template.in_parts
    (sample,) = learned(template, CALLED, TOOLS, last_only=True)
    assert "<|im_start|>tool\n2<|im_end|>" in template.tokenizer.decode(sample.ids)


def test_a_tool_s_result_may_be_written_as_json() -> None:
    rows = [*CALLED[:2], {**CALLED[2], "content": '{"left": 2,\n "of": "rye €"}'}, CALLED[3]]
    text = (
        "{% for m in messages %}<|im_start|>{{ m.content | tojson if m.role == 'tool' else m.content }}"
        "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>{% endif %}"
    )
    (sample,) = learned(template_of("chatml", text), rows, last_only=True)
    assert '{\\"left\\": 2' in template_of("chatml").tokenizer.decode(sample.ids)
    with pytest.raises(RefusedRowError, match="drops or changes message 1"):
        learned(
            template_of("chatml", text.replace("m.role == 'tool'", "m.role == 'user'")),
            [{"role": "user", "content": 'a "b"'}, ASKED[1]],
        )


def test_a_call_after_an_empty_thought_that_the_row_does_not_have_is_refused() -> None:
    with pytest.raises(RefusedRowError, match="before the row's answer") as error:
        learned(template_of("qwen3"), CALLED[:2], TOOLS)
    assert "enable_thinking=false" in error.value.hint
    assert learned(template_of("qwen3", enable_thinking=False), CALLED[:2], TOOLS)


def test_a_switch_of_thinking_is_named_only_where_the_template_has_one() -> None:
    with pytest.raises(RefusedRowError, match="before the row's answer") as error:
        learned(template_of("qwen3-thinking"), ASKED)
    assert "enable_thinking" not in error.value.hint
    assert "give this one some" in error.value.hint


def test_keys_have_the_order_of_the_endpoint_where_a_template_writes_a_message_as_json() -> None:
    """What `vllm.entrypoints.chat_utils.parse_chat_messages` makes of the same messages of a parsed request, but for
    the keys of calls, which have OpenAI's order in both."""
    row = {**CALLED[1], "reasoning_content": "r", "name": "x"}
    made = template_of("qwen3").messages([CALLED[0], row, {**CALLED[2], "name": "stock"}])
    call = '{"id": "c1", "type": "function", "function": {"name": "stock", "arguments": {"item": "rye"}}}'
    whole = f'"tool_calls": [{call}], "reasoning": "r", "reasoning_content": "r", "name": "x"}}'
    assert json.dumps(rendered_messages(made, in_parts=False)[1:]) == (
        f'[{{"role": "assistant", "content": "", {whole}, '
        '{"role": "tool", "content": "2", "tool_call_id": "c1", "name": "stock"}]'
    )
