"""Whether an engine fits into the memory of what it computes on, and which changes would make it fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runner.cluster.accelerators import Accelerator, accelerator_of, larger_gpus, named_accelerator
from runner.errors import Problem
from runner.recipe.arguments import all_accepted
from runner.text import size_text
from stages.engines.vllm.mappings import VLLM
from stages.engines.vllm.memory import context_length, engine_memory
from stages.models.facts import figures
from stages.sections.model import Architecture
from stages.sections.recipe import Recipe

TOO_MUCH = 1.2  # times the memory that there is
_QUARTER = 0.3  # of weights in 16 bits: those in 4 bits with their scales
_MOST_RANKS, _SHORTEST = 8, 1024


def usable(kwargs: dict[str, Any], recipe: Recipe, on: Accelerator) -> int:
    """Bytes that an engine may have there."""
    if recipe.cluster.accelerator == "cpu":
        return on.usable
    share = kwargs.get("gpu_memory_utilization") or VLLM.table("engine")["gpu_memory_utilization"]["default"]
    return int(on.memory * float(share))


def ways(recipe: Recipe, stage: str, kwargs: dict[str, Any], model: Architecture, num_params: int) -> list[str]:
    """Changes of which each alone keeps what an engine needs within the memory."""
    on = accelerator_of(recipe, stage)
    parts = engine_memory(recipe, kwargs, model, num_params)
    assert on is not None
    assert not isinstance(parts, str)
    limit, found = usable(kwargs, recipe, on), dict[str, str]()
    for name, value in _changes(kwargs, model):
        changed = engine_memory(recipe, {**kwargs, name: value}, model, num_params)
        if name not in found and not isinstance(changed, str) and sum(changed.values()) <= limit:
            found[name] = f"{stage}.engine_kwargs.{name}={value}"
    if sum(parts.values()) - parts["weights"] * (1 - _QUARTER) <= limit:
        found["model"] = "a model in 4 bits (AWQ or GPTQ)"
    if larger := next(larger_gpus(sum(parts.values()), on), ""):
        found["type"] = f"a GPU of the type {larger}"
    return [text for name, text in found.items() if recipe.cluster.accelerator == "gpu" or name == "max_model_len"]


def _changes(kwargs: dict[str, Any], model: Architecture) -> Iterator[tuple[str, int]]:
    ranks = int(kwargs.get("tensor_parallel_size", 1)) * 2
    while ranks <= _MOST_RANKS and model.num_attention_heads % ranks == 0:
        yield "tensor_parallel_size", ranks
        ranks *= 2
    length = (context_length(kwargs, model) or 0) // 2
    while length >= _SHORTEST:
        yield "max_model_len", length
        length //= 2


def weights_fit(recipe: Recipe) -> Iterator[Problem]:
    """Refuse an engine whose weights alone the named accelerator cannot hold by a factor."""
    reported = False
    for stage, kwargs in (("infer", recipe.infer.engine_kwargs), ("serve", recipe.serve.engine_kwargs)):
        on = named_accelerator(recipe, stage) if stage in recipe.pipeline and not reported else None
        model = figures(recipe) if on is not None else None
        if on is None or model is None or not all_accepted(VLLM.table("engine"), kwargs):
            continue
        kwargs = {name: value for name, value in kwargs.items() if name != "enable_lora"}  # weights alone
        parts = engine_memory(recipe, kwargs, *model)
        if not isinstance(parts, str) and parts["weights"] > TOO_MUCH * on.memory:
            reported = True
            each, there = size_text(parts["weights"]), size_text(on.memory)
            message = f"an engine of {stage} holds {each} of weights, and {on.place} has {there}"
            could = ways(recipe, stage, kwargs, *model) or ["a smaller model"]
            yield Problem("model.source", recipe.model.source, message, f"Take {', or '.join(could)}.")
