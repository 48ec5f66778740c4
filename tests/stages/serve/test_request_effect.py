"""Parameters of a request are used by the engine that there is, or refused: which of them need what is a list."""

from __future__ import annotations

from typing import Any

import pytest

from stages.engines.vllm.sampling import effect
from stages.engines.vllm.sampling.effect import Engine, without_effect
from stages.engines.vllm.sampling.values import UNREAD, wrong_values

CHATML = frozenset({"messages", "tools", "add_generation_prompt", "enable_thinking"})
PLAIN = Engine(template_variables=frozenset({"messages", "add_generation_prompt"}))
LISTS = (effect.USED, effect.LABELS, effect.NEVER, effect.WITH, effect.WITH_ENGINE, effect.OF_TEMPLATE)
NESTED = {
    "stream_options": {"include_usage", "continuous_usage_stats"},
    "structured_outputs": {*UNREAD, "json", "regex", "choice", "grammar", "json_object", "structural_tag"},
    "repetition_detection": {"max_pattern_size", "min_pattern_size", "min_count"},
}


@pytest.mark.environment("engine")
def test_every_parameter_of_the_installed_vllm_is_in_one_of_the_lists() -> None:
    """Of a parameter that is new in vLLM somebody has to find out what uses it."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest

    from stages.serve.guard.names import names_of

    listed = [name for names in LISTS for name in names]
    assert set(listed) == set(ChatCompletionRequest.model_fields) | set(CompletionRequest.model_fields)
    assert len(listed) == len(set(listed))
    assert set(effect.IN_BEAM_SEARCH) <= set(listed)
    names = names_of(ChatCompletionRequest) or {}
    assert {name: set(names[name] or ()) for name in NESTED} == NESTED


@pytest.mark.parametrize(
    ("given", "param", "words"),
    [
        ({"priority": 5}, "priority", "with scheduling_policy=priority alone"),
        ({"priority": -1}, "priority", "with scheduling_policy=priority alone"),
        ({"vllm_xargs": {"a": 1}}, "vllm_xargs", "with logits_processors alone"),
        ({"kv_transfer_params": {"remote_host": "x"}}, "kv_transfer_params", "with kv_transfer_config alone"),
        ({"ec_transfer_params": {"a": 1}}, "ec_transfer_params", "with ec_transfer_config alone"),
        ({"routed_experts_prompt_start": 2}, "routed_experts_prompt_start", "enable_return_routed_experts"),
        ({"include_reasoning": False}, "include_reasoning", "with reasoning_parser alone"),
        ({"prompt_embeds": "AAAA"}, "prompt_embeds", "with enable_prompt_embeds alone"),
        ({"return_tokens_as_token_ids": True}, "return_tokens_as_token_ids", "with logprobs alone"),
        ({"return_tokens_as_token_ids": True, "logprobs": False}, "return_tokens_as_token_ids", "with logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "with stream alone"),
        ({"truncation_side": "left"}, "truncation_side", "with truncate_prompt_tokens alone"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens", "next to max_completion_tokens"),
        (
            {"structured_outputs": {"json": {}}, "response_format": {"type": "json_object"}},
            "structured_outputs",
            "next to response_format",
        ),
        ({"use_beam_search": True, "top_p": 0.5}, "top_p", "not used with use_beam_search"),
        ({"use_beam_search": True, "stop": ["a"]}, "stop", "not used with use_beam_search"),
        ({"use_beam_search": True, "seed": 3}, "seed", "not used with use_beam_search"),
        ({"use_beam_search": True, "response_format": {"type": "json_object"}}, "response_format", "not used with"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs.enable_thinking", "no"),
        ({"chat_template_kwargs": {"tools": []}}, "chat_template_kwargs.tools", "set tools itself"),
        ({"reasoning_effort": "low"}, "reasoning_effort", "not a variable of the model's chat template"),
        ({"documents": [{"text": "a"}]}, "documents", "not a variable of the model's chat template"),
        ({"suffix": "a"}, "suffix", "not used by this endpoint"),
        ({"chat_template": "{{ a }}"}, "chat_template", "with trust_request_chat_template alone"),
        ({"thinking_token_budget": 5}, "thinking_token_budget", "with reasoning_parser or reasoning_config alone"),
        ({"tools": [{"type": "function"}]}, "tools", "not a variable of the model's chat template"),
        ({"echo": True, "messages": [{"role": "user", "content": "a"}]}, "echo", "the last message is the assistant's"),
        ({"media_io_kwargs": {"image": {}}}, "media_io_kwargs", "not used by this endpoint"),
    ],
)  # fmt: skip
def test_what_this_engine_would_take_and_not_use_is_refused(given: Any, param: str, words: str) -> None:
    (found,) = [each for each in wrong_values(given, PLAIN) if each[0] == param]
    assert words in found[2]


@pytest.mark.parametrize(
    ("given", "engine"),
    [
        ({"priority": 5}, Engine({"scheduling_policy": "priority"})),
        ({"priority": 0}, PLAIN),
        ({"vllm_xargs": {"a": 1}}, Engine({"logits_processors": ["mine:Own"]})),
        ({"vllm_xargs": {}, "kv_transfer_params": None}, PLAIN),
        ({"kv_transfer_params": {"a": 1}}, Engine({"kv_transfer_config": {"kv_connector": "X"}})),
        ({"include_reasoning": False}, Engine({"reasoning_parser": "qwen3"})),
        ({"include_reasoning": True}, PLAIN),
        ({"return_tokens_as_token_ids": True, "logprobs": 0}, PLAIN),
        ({"stream": True, "stream_options": {"include_usage": True}}, PLAIN),
        ({"max_tokens": 3, "max_completion_tokens": 3}, PLAIN),
        ({"structured_outputs": {"json": {}}, "response_format": {"type": "text"}}, PLAIN),
        ({"use_beam_search": True, "n": 2, "temperature": 0, "length_penalty": 2.0, "top_p": 1, "top_k": 0}, PLAIN),
        ({"chat_template_kwargs": {"enable_thinking": False}}, Engine(template_variables=CHATML)),
        ({"reasoning_effort": "none"}, Engine(template_variables=CHATML)),
        ({"reasoning_effort": "low"}, Engine()),  # a tokenizer that renders by itself
        (
            {"chat_template_kwargs": {"own": 1}, "chat_template": "{{ own }}"},
            Engine({"trust_request_chat_template": True}, PLAIN.template_variables),
        ),
        ({"thinking_token_budget": 5}, Engine({"reasoning_config": {"reasoning_parser": "qwen3"}})),
        ({"thinking_token_budget": -1, "suffix": None}, PLAIN),
        ({"tools": [{"type": "function"}]}, Engine(template_variables=CHATML)),
        ({"tools": [{"type": "function"}], "tool_choice": "none"}, PLAIN),
        ({"echo": True, "prompt": "a"}, PLAIN),
        ({"echo": True, "messages": [{"role": "assistant", "content": "a"}]}, PLAIN),
        ({"user": "me", "request_id": "a", "session_id": "b"}, PLAIN),
    ],
)  # fmt: skip
def test_what_has_an_effect_passes(given: Any, engine: Engine) -> None:
    assert list(wrong_values(given, engine)) == []


def test_beam_search_is_refused_where_it_would_not_stop_at_the_end_of_a_turn() -> None:
    engine, messages = Engine(own_end=False), [{"role": "user", "content": "a"}]
    assert [name for name, _, _ in without_effect({"use_beam_search": True, "messages": messages}, engine)] == [
        "use_beam_search"
    ]
    assert list(without_effect({"use_beam_search": True, "prompt": "a"}, engine)) == []


def test_the_variables_of_a_template_are_those_that_it_reads_from_outside() -> None:
    from stages.models.chat_template import ChatTemplate

    text = "{% set a = 1 %}{% generation %}{{ a }}{{ b }}{{ raise_exception('x') }}{% endgeneration %}"
    assert ChatTemplate(None, text).variables == {"b"}
    assert ChatTemplate(None, "{% if %}").variables is None
    assert ChatTemplate(None).variables is None
