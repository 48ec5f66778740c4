"""A stand-in for what vLLM's ModelConfig says of a tokenizer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OfModel:
    """tokenizer: its folder."""

    tokenizer: str
    runner_type: str = "generate"
    tokenizer_mode: str = "auto"
    tokenizer_revision: None = None
    trust_remote_code: bool = False
    skip_tokenizer_init: bool = False

    def get_vocab_size(self) -> int:
        return 259
