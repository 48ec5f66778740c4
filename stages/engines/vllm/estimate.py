"""Figures of vLLM's engines, in batch inference and at the endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from runner.cluster.accelerators import accelerator_of
from runner.pipeline.estimates.figure import Estimate, Known, memory, unknown
from runner.text import count_text
from stages.engines.vllm import batch as batch_engine
from stages.engines.vllm.fit import usable, ways
from stages.engines.vllm.memory import context_length, engine_memory, kv_element_bytes
from stages.engines.vllm.serving import server as server_engine
from stages.models.architecture import head_dim, kv_bytes_per_token
from stages.models.known import known_model
from stages.sections.recipe import Recipe


def batch(known: Known[Recipe]) -> Iterator[Estimate]:
    """Memory of an engine of batch inference."""
    rank = known.recipe.train.lora_rank if "publish" in known.recipe.pipeline else None
    yield from _engine(known, "infer", batch_engine.engine_kwargs(known.recipe, rank))


def server(known: Known[Recipe]) -> Iterator[Estimate]:
    """Memory of an engine of the endpoint."""
    kwargs = server_engine.engine_kwargs(known.recipe, with_adapters="publish" in known.recipe.pipeline)
    yield from _engine(known, "serve", kwargs)


def _engine(known: Known[Recipe], stage: str, kwargs: dict[str, Any]) -> Iterator[Estimate]:
    """Memory of one rank of an engine, and what a token takes of its KV cache."""
    recipe, model = known.recipe, known_model(known)
    if model.architecture is None or model.num_params is None:
        yield unknown("memory of an engine", "bytes", model.basis)
        return
    parts = engine_memory(recipe, kwargs, model.architecture, model.num_params)
    if recipe.cluster.accelerator == "cpu":
        basis = f"KV cache: cluster.cpu_kv_cache_gib; weights: {model.basis}"
    else:
        length = context_length(kwargs, model.architecture)
        basis = f"each rank needs at least this, with the KV cache of one request of {length} tokens; {model.basis}"
    on = accelerator_of(recipe, stage)
    limit = usable(kwargs, recipe, on) if on else None
    could = partial(ways, recipe, stage, kwargs, model.architecture, model.num_params)
    yield memory("memory of an engine", parts, basis, limit=limit, where=on.place if on else "", ways=could)
    stored = kv_element_bytes(kwargs, model.architecture)
    if stored is not None:
        each = kv_bytes_per_token(model.architecture, stored)
        layers, heads = model.architecture.num_hidden_layers, model.architecture.num_key_value_heads
        wide = f"{count_text(heads, 'KV head')} x {head_dim(model.architecture)} wide"
        basis = f"2 x {count_text(layers, 'layer')} x {wide} x {count_text(stored, 'byte')}"
        yield Estimate("KV cache of a token", each, "bytes", basis)
