"""Ranks of adapters that vLLM has slots for."""

from __future__ import annotations

from typing import Any

from runner.errors import RunnerError
from stages.engines.vllm.mappings import VLLM
from stages.sections.recipe import Recipe

FOR_ADAPTERS = ("enable_lora", "max_lora_rank", "max_loras", "max_cpu_loras", "fully_sharded_loras")


def engine_rank(rank: int) -> int:
    """The smallest `max_lora_rank` of vLLM that an adapter of that rank fits; the rank itself where none is enough."""
    return next((each for each in VLLM.table("engine")["max_lora_rank"]["choices"] if each >= rank), rank)


def with_rank(recipe: Recipe, rank: int, whose: str) -> dict[str, Any]:
    """`serve.engine_kwargs` with slots for an adapter of that rank, too. Raises RunnerError when they are too small."""
    given = recipe.serve.engine_kwargs.get("max_lora_rank")
    if given is not None and given < rank:
        raise RunnerError(
            f"{whose} has rank {rank}, engine_kwargs.max_lora_rank={given}",
            f"Set serve.engine_kwargs.max_lora_rank={engine_rank(rank)}.",
        )
    return {**recipe.serve.engine_kwargs, "max_lora_rank": given or engine_rank(max(recipe.train.lora_rank, rank))}
