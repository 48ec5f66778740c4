"""The chat template of requests, rendered in processes that are killed when it takes too long.

It is a program of the model's maker, and what it is given comes from clients. vLLM renders it in the only thread of
the API's process that does so, which nothing can end: one request's messages would hold everybody else's.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from stages.engines.vllm.serving.side_process import READY, LostError, Workers, limit_memory
from stages.models.endpoint_form import with_calls_in_order

NUM_WORKERS = 2
_PARAM = "messages"


@dataclass(frozen=True)
class Question:
    """What vLLM's `safe_apply_chat_template` is given besides the model and its tokenizer."""

    conversation: Any
    kwargs: Mapping[str, Any]


def run(connection: Connection, model_config: Any) -> None:
    """Answer each Question with (the prompt, ""), or with why the template does not take it. Says READY first."""
    from vllm.tokenizers import cached_tokenizer_from_config

    tokenizer = cached_tokenizer_from_config(model_config)
    limit_memory()
    connection.send(READY)
    while True:
        try:
            asked: Question = connection.recv()
        except EOFError:  # the replica is gone
            return
        made: tuple[Any, str]
        try:
            made = prompt_of(model_config, tokenizer, asked.conversation, **asked.kwargs), ""
        except Exception as error:  # whatever a template raises is its answer
            made = None, _reason(error)
        connection.send(made)


def prompt_of(model_config: Any, tokenizer: Any, conversation: Any, **kwargs: Any) -> str | list[int]:
    """What vLLM's renderer makes of the conversation, but for the order of the keys of calls, which is training's."""
    from vllm.renderers.hf import safe_apply_chat_template

    made: str | list[int] = safe_apply_chat_template(
        model_config, tokenizer, with_calls_in_order(conversation), **kwargs
    )
    return made


def _reason(error: BaseException) -> str:
    cause = error.__cause__ or error
    if isinstance(cause, MemoryError):
        return "the chat template needs too much memory for these messages"
    return str(error) or type(cause).__name__


class Rendering:
    """Renders conversations as vLLM's renderer does. workers: whose `run` is that of this module."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self.timeout_s = 5.0

    async def begin(self) -> None:
        """Start a process, so that the first request does not wait for it. A failure is told by the first request."""
        with suppress(OSError, RuntimeError):
            await self._workers.begin()

    async def __call__(self, conversation: Any, **kwargs: Any) -> str | list[int]:
        """The prompt. Raises ValueError where the template refuses the conversation, and VLLMValidationError where it
        takes too long."""
        from vllm.exceptions import VLLMValidationError

        try:
            prompt, refusal = await self._workers.ask(Question(conversation, kwargs), self.timeout_s)
        except LostError as error:
            message = f"the model's chat template cannot be rendered with these messages: {error}"
            raise VLLMValidationError(message, parameter=_PARAM) from None
        except RecursionError:  # of pickle
            raise VLLMValidationError("the messages are nested too deeply", parameter=_PARAM) from None
        if refusal:
            raise ValueError(refusal)
        made: str | list[int] = prompt
        return made
