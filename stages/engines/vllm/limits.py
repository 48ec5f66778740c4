"""What vLLM takes at once in batch inference, and how long prompts and answers may be."""

from __future__ import annotations

from typing import Any

from stages.engines.base import BatchLimits
from stages.sections.recipe import Recipe

_BLOCK = {"gpu": 16, "cpu": 128}  # tokens of a block of the KV cache, where a recipe says nothing
_STEP = 32  # tokens: what `kwargs_for` rounds up to
_AT_ONCE, _MAX_TOKENS = 256, 16


def batch_limits(recipe: Recipe) -> BatchLimits:
    """Of the recipe's arguments, else vLLM's own."""
    kwargs = recipe.infer.engine_kwargs
    context, answer = kwargs.get("max_model_len"), int(recipe.infer.sampling.get("max_tokens") or _MAX_TOKENS)
    block = int(kwargs.get("block_size") or _BLOCK[recipe.cluster.accelerator])
    return BatchLimits(
        prompt=context - answer if isinstance(context, int) else None,
        made_of=f"max_model_len {context} - max_tokens {answer}" if context else "max_model_len is the model's",
        answer=answer,
        at_once=int(kwargs.get("max_num_seqs") or _AT_ONCE),
        block=block if kwargs.get("enable_prefix_caching", True) else None,
    )


def kwargs_for(prompt: int, answer: int) -> dict[str, Any]:
    """Arguments that hold a prompt and an answer of so many tokens."""
    return {"max_model_len": -(-(prompt + answer) // _STEP) * _STEP}
