"""What a request costs: answers and tokens, against `serve.limits`, and texts that are compared with every token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.sections.serve import Limits
from stages.serve.guard.refusal import Refusal, RefusedError

_PER_PROMPT = ("n", "best_of")
# Looked at one by one for each token of an answer, or by the process that all requests pass.
_MOST = {
    "stop": 64, "bad_words": 256, "logit_bias": 1024, "stop_token_ids": 1024, "logprob_token_ids": 1024,
    "allowed_token_ids": 262_144,
}  # fmt: skip
_MOST_ITEMS = 10_000
_INPUTS = ("prompt", "prompt_embeds", "input", "text_1", "text_2", "queries", "documents", "data_1", "data_2")


def num_answers(body: Mapping[str, Any]) -> int:
    """How many answers, embeddings or scores the request asks for: its prompts times n. At least 1."""
    prompts = max(_num_inputs(body.get(name)) for name in _INPUTS)
    each = [value for name in _PER_PROMPT if (value := _whole(body.get(name))) is not None]
    return max(1, prompts) * max([1, *each])


def _whole(value: Any) -> int | None:
    """The value where it is a whole number: JSON has one kind of number, and `1e3` is one."""
    if isinstance(value, bool):
        return None
    return int(value) if isinstance(value, int) or (isinstance(value, float) and value.is_integer()) else None


def _num_inputs(value: Any) -> int:
    """A list of token ids is one input, a list of texts or of such lists as many as it has."""
    if not isinstance(value, list) or not value or all(isinstance(each, int) for each in value):
        return 1
    return len(value)


def refuse_costly(body: Mapping[str, Any], limits: Limits) -> int:
    """How many answers the request asks for. Raises RefusedError when one of the limits is below."""
    most = {**dict.fromkeys(_PER_PROMPT, limits.max_n)}
    if limits.max_tokens is not None:
        most |= dict.fromkeys(("max_tokens", "max_completion_tokens"), limits.max_tokens)
    for name, limit in most.items():
        value = _whole(body.get(name))
        if value is not None and value > limit:
            raise _exceeded(f"{name} is {value}, and this endpoint allows at most {limit}.", name)
    for name, limit in _MOST.items():
        value = body.get(name)
        if isinstance(value, list | dict) and len(value) > limit:
            raise _exceeded(f"{name} has {len(value)} entries, and this endpoint allows at most {limit}.", name)
    answers = num_answers(body)
    if answers > limits.max_answers:
        name = next((name for name in _INPUTS if _num_inputs(body.get(name)) > 1), "n")
        message = f"The request asks for {answers} answers, and this endpoint allows at most {limits.max_answers}."
        raise _exceeded(message, name)
    return answers


def refuse_many(body: Mapping[str, Any]) -> None:
    """Raise RefusedError for more messages, their parts and calls, and tools than this endpoint takes: each of them is
    looked at several times by the process that all requests pass."""
    left = _MOST_ITEMS
    messages, tools = _listed(body.get("messages")), _listed(body.get("tools"))
    inner = (each.get(name) for each in messages if isinstance(each, dict) for name in ("content", "tool_calls"))
    for name, items in (("messages", messages), ("tools", tools), *(("messages", _listed(each)) for each in inner)):
        left -= len(items)
        if left < 0:
            message = f"The request has more than {_MOST_ITEMS:,} messages, parts, calls and tools together."
            raise _exceeded(message, name)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _exceeded(message: str, param: str) -> RefusedError:
    return RefusedError(Refusal(400, message, "limit_exceeded", param=param))


def set_max_tokens(body: Any, limits: Limits) -> None:
    """Give a request that does not say how many tokens it wants the most that it may have.

    body: a request to generate, as Ray Serve LLM reads it (a pydantic model).
    """
    given = vars(body)  # reading a deprecated field warns
    names = ("max_completion_tokens", "max_tokens")
    if limits.max_tokens is None or any(given.get(name) is not None for name in names):
        return
    for name in names:
        if name in given:
            setattr(body, name, limits.max_tokens)
            return
