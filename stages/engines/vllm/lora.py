"""Ranks of adapters that vLLM has slots for."""

from __future__ import annotations

from stages.engines.vllm.mappings import VLLM

FOR_ADAPTERS = ("enable_lora", "max_lora_rank", "max_loras", "max_cpu_loras", "fully_sharded_loras")


def engine_rank(rank: int) -> int:
    """The smallest `max_lora_rank` of vLLM that an adapter of that rank fits; the rank itself where none is enough."""
    return next((each for each in VLLM.table("engine")["max_lora_rank"]["choices"] if each >= rank), rank)
