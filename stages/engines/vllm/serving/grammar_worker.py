"""The process that tries a schema or grammar as the engine would: it may be ended whenever it takes too long.

Imports vLLM inside functions: the process is forked from a server that has imported it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from stages.engines.vllm.serving.side_process import READY, limit_memory

_STEPS = 8
_PLACE_IN_CODE = re.compile(r"\[\d\d:\d\d:\d\d\] \S+?:\d+: ")
_MAX_REASON = 300


@dataclass(frozen=True)
class EngineConfig:
    """What vLLM's backends of structured outputs read of the engine's configuration."""

    model_config: Any
    structured_outputs_config: Any
    speculative_config: None = None


def run(connection: Connection, config: EngineConfig) -> None:
    """Answer each `(kind, value)` with why the engine cannot use it, or "". Says READY first."""
    check = checker(config)
    limit_memory()
    connection.send(READY)
    while True:
        try:
            kind, value = connection.recv()
        except EOFError:  # the replica is gone
            return
        connection.send(check(kind, value))


def checker(config: EngineConfig) -> Callable[[str, Any], str]:
    """What `run` answers with. kind, value: one of vLLM's structured_outputs."""
    from vllm.tokenizers import cached_tokenizer_from_config
    from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend

    tokenizer = cached_tokenizer_from_config(config.model_config)
    backend = XgrammarBackend(config, tokenizer=tokenizer, vocab_size=config.model_config.get_vocab_size())

    def check(kind: str, value: Any) -> str:
        try:
            _try(backend, config.structured_outputs_config.backend, kind, value)
        except Exception as error:  # whatever a backend raises is a reason
            return reason(error)
        return ""

    return check


def _try(backend: Any, name: str, kind: str, value: Any) -> None:
    """Raise what the engine would: by xgrammar, or where that does not know a feature and vLLM may choose, guidance."""
    from vllm.exceptions import VLLMValidationError
    from vllm.sampling_params import SamplingParams, StructuredOutputsParams
    from vllm.v1.structured_output.backend_guidance import validate_guidance_grammar
    from vllm.v1.structured_output.backend_xgrammar import validate_xgrammar_grammar
    from vllm.v1.structured_output.request import get_structured_output_key

    if kind == "structural_tag" and not isinstance(value, str):
        value = json.dumps(value)
    params = SamplingParams(structured_outputs=StructuredOutputsParams(**{kind: value}))
    if name not in ("auto", "xgrammar"):
        validate_guidance_grammar(params)
        return
    try:
        validate_xgrammar_grammar(params)
    except (ValueError, VLLMValidationError) as error:
        if name != "auto" or "not supported by xgrammar" not in str(error):
            raise ValueError(reason(error.__cause__ or error)) from error
        validate_guidance_grammar(params)
        return
    assert params.structured_outputs is not None
    follow(backend.compile_grammar(*get_structured_output_key(params.structured_outputs)), backend.vocab_size)


def follow(grammar: Any, vocab_size: int) -> None:
    """Choose some tokens as the engine would. Raises ValueError where no token is allowed at the beginning."""
    import xgrammar

    bitmask = xgrammar.allocate_token_bitmask(1, vocab_size)
    stops = set(grammar.matcher.stop_token_ids)
    for step in range(_STEPS):
        if not grammar.matcher.fill_next_token_bitmask(bitmask):  # every token is allowed
            return
        allowed = [32 * place + bit for place, word in enumerate(bitmask[0].tolist()) for bit in _bits(word)]
        if not allowed:
            raise ValueError("it allows no text" if step == 0 else "it allows no end of a text that it begins")
        token = next((each for each in allowed if each not in stops), None)
        if token is None or not grammar.matcher.accept_token(token):
            return


def _bits(word: int) -> list[int]:
    return [bit for bit in range(32) if word >> bit & 1]


def reason(error: BaseException) -> str:
    """An exception as a clause: without places in a library's code, and of bounded length."""
    text = _PLACE_IN_CODE.sub("", str(error) or type(error).__name__)
    return " ".join(text.split())[:_MAX_REASON].rstrip(". ")
