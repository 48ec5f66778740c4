"""Figures of vLLM's engines, in batch inference and at the endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runner.pipeline.estimates.figure import Estimate, Known
from runner.pipeline.estimates.rates import infer_seconds
from stages.engines.vllm import batch
from stages.engines.vllm import server as serve_engine
from stages.engines.vllm.memory import context_length, engine_memory, kv_element_bytes
from stages.models.architecture import head_dim, kv_bytes_per_token


def infer(known: Known) -> Iterator[Estimate]:
    recipe = known.recipe
    adapted = "publish" in recipe.pipeline
    rank = recipe.train.lora_rank if adapted else None
    yield from _engine(known, batch.engine_kwargs(recipe, rank))
    rows = known.rows.counts["test"]
    if rows is None:
        yield known.unknown("predictions", "rows", known.rows.basis)
        yield known.unknown("time", "s", known.rows.basis)
        return
    variants = 2 if adapted and recipe.evaluate.compare_base else 1
    by = "adapter and base model" if variants == 2 else "one model"
    yield Estimate("predictions", rows * variants, "rows", f"{rows:,} rows ({known.rows.basis}) by {by}")
    yield known.time(infer_seconds(recipe, rows * variants, known.past))


def serve(known: Known) -> Iterator[Estimate]:
    recipe = known.recipe
    kwargs = serve_engine.engine_kwargs(recipe, with_adapters="publish" in recipe.pipeline)
    yield from _engine(known, kwargs)
    yield known.plain_time("serve")


def _engine(known: Known, kwargs: dict[str, Any]) -> Iterator[Estimate]:
    """Memory of one rank of an engine, and what a token takes of its KV cache."""
    recipe, model = known.recipe, known.model
    if model.architecture is None or model.num_params is None:
        yield known.unknown("memory of an engine", "bytes")
        return
    parts = engine_memory(recipe, kwargs, model.architecture, model.num_params)
    if recipe.cluster.accelerator == "cpu":
        basis = f"KV cache: cluster.cpu_kv_cache_gib; weights: {model.basis}"
    else:
        length = context_length(kwargs, model.architecture)
        basis = f"each rank needs at least this, with the KV cache of one request of {length} tokens; {model.basis}"
    yield known.memory("memory of an engine", parts, basis)
    stored = kv_element_bytes(kwargs, model.architecture)
    if stored is not None:
        each = kv_bytes_per_token(model.architecture, stored)
        layers, heads = model.architecture.num_hidden_layers, model.architecture.num_key_value_heads
        basis = f"2 x {layers} layers x {heads} KV heads x {head_dim(model.architecture)} wide x {stored} bytes"
        yield Estimate("KV cache of a token", each, "bytes", basis)
