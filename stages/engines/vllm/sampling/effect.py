"""What a parameter of a request needs to have an effect: all that vLLM's request models have, and nothing else.

vLLM takes each of them, and of many it uses nothing unless the engine or the request has something else as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Wrong = tuple[str, Any, str]
"""Dotted name of a parameter, its value, and a clause after it."""
Given = Mapping[str, Any]

# Used as they are, or refused by vLLM itself in words that name the parameter.
USED = (
    "add_generation_prompt", "add_special_tokens", "allowed_token_ids", "bad_words", "cache_salt",
    "continue_final_message", "echo", "frequency_penalty", "ignore_eos", "include_stop_str_in_output", "logit_bias",
    "logprob_token_ids", "logprobs", "max_completion_tokens", "max_tokens", "messages", "min_p", "min_tokens", "model",
    "n", "parallel_tool_calls", "presence_penalty", "prompt", "prompt_logprobs",
    "repetition_detection", "repetition_penalty", "response_format", "return_prompt_text", "return_token_ids", "seed",
    "skip_special_tokens", "spaces_between_special_tokens", "stop", "stop_token_ids", "stream",
    "structured_outputs", "temperature", "tool_choice", "top_k",
    "top_logprobs", "top_p", "truncate_prompt_tokens", "use_beam_search",
)  # fmt: skip
# A client's own names for itself and its request, which no answer depends on.
LABELS = ("request_id", "session_id", "user")
# Never used by this endpoint: of rendering alone, about images, which are taken as they are (`guard.messages`), or not
# known to vLLM's models.
NEVER = (
    "media_io_kwargs", "mm_processor_kwargs", "return_assistant_tokens_mask", "return_token_offsets", "suffix",
)  # fmt: skip
# Used where another parameter of the request is set.
WITH = {
    "length_penalty": "use_beam_search",
    "return_tokens_as_token_ids": "logprobs",
    "stream_interval": "stream",
    "stream_options": "stream",
    "truncation_side": "truncate_prompt_tokens",
}
# Used where the engine has been given one of these arguments (or, after "=", this value of it).
WITH_ENGINE = {
    "chat_template": "trust_request_chat_template",
    "ec_transfer_params": "ec_transfer_config",
    "include_reasoning": "reasoning_parser",
    "kv_transfer_params": "kv_transfer_config",
    "prompt_embeds": "enable_prompt_embeds",
    "priority": "scheduling_policy=priority",
    "routed_experts_prompt_start": "enable_return_routed_experts",
    "thinking_token_budget": "reasoning_parser or reasoning_config",
    "vllm_xargs": "logits_processors",
}
# Variables of the chat template.
OF_TEMPLATE = ("chat_template_kwargs", "documents", "reasoning_effort", "tools")
# Variables of it that the request has parameters for, which win.
_OF_REQUEST = ("add_generation_prompt", "continue_final_message", "messages", "tools")
# What vLLM's beam search reads; of all else it uses nothing.
IN_BEAM_SEARCH = (
    *LABELS, *OF_TEMPLATE, "add_generation_prompt", "add_special_tokens", "chat_template", "continue_final_message",
    "echo", "ignore_eos", "include_reasoning", "include_stop_str_in_output", "length_penalty", "logprobs",
    "max_completion_tokens", "max_tokens", "messages", "model", "n", "parallel_tool_calls", "prompt",
    "return_prompt_text", "return_token_ids", "return_tokens_as_token_ids", "stream", "stream_options", "temperature",
    "tool_choice", "top_logprobs", "truncate_prompt_tokens", "truncation_side", "use_beam_search",
)  # fmt: skip
# Values that ask for what is so without them.
_DEFAULTS: Given = {
    "include_reasoning": True, "length_penalty": 1, "priority": 0, "routed_experts_prompt_start": 0,
    "skip_special_tokens": True, "spaces_between_special_tokens": True, "thinking_token_budget": -1,
    "repetition_penalty": 1, "top_k": -1, "top_p": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Engine:
    """What requests meet. arguments: of vLLM. template_variables: of its chat template; None where it has no text.
    own_end: whether chats end with the tokenizer's own end of text, the only one that beam search knows."""

    arguments: Given = field(default_factory=dict)
    template_variables: frozenset[str] | None = None
    own_end: bool = True


def without_effect(given: Given, engine: Engine) -> Iterator[Wrong]:
    """The parameters in the body of a request that this engine would take and not use."""
    for check in (_never, _with_another, _with_the_engine, _in_beam_search, _twice, _echo):
        yield from check(given, engine)
    if not given.get("chat_template"):
        yield from _of_template(given, engine)


def _asked(given: Given, names: Any) -> Iterator[tuple[str, Any]]:
    """Those of the names whose value asks for something."""
    for name in names:
        value = given.get(name)
        if value not in (None, False, "", [], {}, _DEFAULTS.get(name)) or (value is False and name in _ON):
            yield name, value


_ON = [name for name, value in _DEFAULTS.items() if value is True]


def _never(given: Given, _: Engine) -> Iterator[Wrong]:
    for name, value in _asked(given, NEVER):
        yield name, value, "is not used by this endpoint"


def _with_another(given: Given, _: Engine) -> Iterator[Wrong]:
    for name, value in _asked(given, WITH):
        if given.get(WITH[name]) is None or given[WITH[name]] is False:  # logprobs of a completion may be 0
            yield name, value, f"is used with {WITH[name]} alone"


def _with_the_engine(given: Given, engine: Engine) -> Iterator[Wrong]:
    for name, value in _asked(given, WITH_ENGINE):
        if not any(_has(engine, each) for each in WITH_ENGINE[name].split(" or ")):
            yield name, value, f"is used by an engine with {WITH_ENGINE[name]} alone"


def _has(engine: Engine, argument: str) -> bool:
    name, _, wanted = argument.partition("=")
    found = engine.arguments.get(name)
    return bool(found == wanted if wanted else found)


def _in_beam_search(given: Given, engine: Engine) -> Iterator[Wrong]:
    if given.get("use_beam_search"):
        if "messages" in given and not engine.own_end:
            yield "use_beam_search", True, "does not stop where this model's chat template ends an answer"
        for name, value in _asked(given, set(given) - set(IN_BEAM_SEARCH)):
            yield name, value, "is not used with use_beam_search"


def _twice(given: Given, _: Engine) -> Iterator[Wrong]:
    """Two ways to say the same, of which vLLM takes one."""
    most = given.get("max_completion_tokens")
    if most is not None and given.get("max_tokens") not in (None, most):
        yield "max_tokens", given["max_tokens"], "is not used next to max_completion_tokens"
    form = given.get("response_format")
    kind = form.get("type") if isinstance(form, Mapping) else None
    if isinstance(form, Mapping) and form.get("json_schema") is not None and kind != "json_schema":
        yield "response_format.json_schema", form["json_schema"], "is used with the type json_schema alone"
    if kind not in (None, "text") and given.get("structured_outputs"):
        yield "structured_outputs", given["structured_outputs"], "is not used next to response_format"


def _echo(given: Given, _: Engine) -> Iterator[Wrong]:
    """A chat's echo is the last message where the answer continues it."""
    messages = given.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    asked = given.get("echo") and given.get("add_generation_prompt") is not False
    if asked and isinstance(last, Mapping) and last.get("role") != "assistant":
        yield "echo", True, "is used where the last message is the assistant's alone"


def _of_template(given: Given, engine: Engine) -> Iterator[Wrong]:
    known, why = engine.template_variables, "is not a variable of the model's chat template"
    if known is None:
        return
    kwargs = given.get("chat_template_kwargs")
    for name, value in kwargs.items() if isinstance(kwargs, Mapping) else ():
        if name in _OF_REQUEST:
            yield f"chat_template_kwargs.{name}", value, f"is not used: set {name} itself"
        elif name not in known:
            yield f"chat_template_kwargs.{name}", value, why
    own = ("documents", "reasoning_effort") if given.get("tool_choice") == "none" else OF_TEMPLATE[1:]
    for name, value in _asked(given, own):
        # vLLM sets enable_thinking by the effort where the request does not.
        instead = "enable_thinking" if name == "reasoning_effort" and name not in known else name
        if instead not in known:
            yield name, value, why
