"""Memory of an engine, in bytes for one rank, part by part. What cannot be counted is a reason.

Left out: what torch, CUDA and the processes themselves take (a GPU's context and kernels are about 1 GB).
"""

from __future__ import annotations

from typing import Any

from runner.pipeline.estimates.figure import Parts
from stages.engines.vllm.mappings import VLLM
from stages.models.architecture import DTYPE_BYTES, kv_bytes_per_token, lora_params
from stages.sections.model import Architecture
from stages.sections.recipe import Recipe


def engine_memory(recipe: Recipe, kwargs: dict[str, Any], model: Architecture, num_params: int) -> Parts | str:
    """Weights, LoRA slots and KV cache of one rank of a vLLM engine, or why they are not known.

    kwargs: what vLLM is given. On CPUs the cache has the size of `cluster.cpu_kv_cache_gib`; on a GPU it takes what
    `gpu_memory_utilization` leaves, so here it is what one request of `max_model_len` tokens takes.
    """
    if quantization := kwargs.get("quantization"):
        return f"weights under quantization={quantization} are not counted here"
    element = weight_element_bytes(kwargs, model)
    ranks = int(kwargs.get("tensor_parallel_size", 1)) * int(kwargs.get("pipeline_parallel_size", 1))
    parts = {"weights": num_params * element // ranks}
    if kwargs.get("enable_lora"):
        slots = lora_params(model, int(kwargs["max_lora_rank"]))
        assert slots is not None
        parts["LoRA"] = int(kwargs.get("max_loras", 1)) * slots * element // ranks
    if recipe.cluster.accelerator == "cpu":
        parts["KV cache"] = recipe.cluster.cpu_kv_cache_gib << 30
        return parts
    length, cached = context_length(kwargs, model), kv_element_bytes(kwargs, model)
    if length is None or cached is None:
        return "the length of a request is not known" if length is None else "kv_cache_dtype is not counted here"
    shared = min(int(kwargs.get("tensor_parallel_size", 1)), model.num_key_value_heads)  # further ranks hold copies
    shared *= int(kwargs.get("pipeline_parallel_size", 1))
    parts["KV cache"] = length * kv_bytes_per_token(model, cached) // shared
    return parts


def context_length(kwargs: dict[str, Any], model: Architecture) -> int | None:
    """Tokens of the longest request: `max_model_len`, else what the model was made for."""
    length = kwargs.get("max_model_len")
    return length if isinstance(length, int) and length > 0 else model.max_position_embeddings


def weight_element_bytes(kwargs: dict[str, Any], model: Architecture) -> int:
    """Bytes of a weight as the engine holds it. vLLM's `auto` takes float32 weights as float16."""
    dtype = kwargs.get("dtype", "auto")
    return min(2, DTYPE_BYTES[model.dtype]) if dtype == "auto" else DTYPE_BYTES[dtype]


def kv_element_bytes(kwargs: dict[str, Any], model: Architecture) -> int | None:
    """Bytes of an element of the KV cache; None for a type that packs several."""
    kind = kwargs.get("kv_cache_dtype", VLLM.table("engine")["kv_cache_dtype"]["default"])
    return (
        weight_element_bytes(kwargs, model)
        if kind == "auto"
        else {**DTYPE_BYTES, "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1}.get(kind)
    )
