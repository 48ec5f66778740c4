"""A model that is spread over the workers: what DeepSpeed and FSDP are told besides what the recipe says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ARGUMENTS = ("deepspeed", "fsdp")

# Of FSDP's checkpoints: each worker writes its shard, or the first one all that it has gathered of the others.
SHARDED, WHOLE = "SHARDED_STATE_DICT", "FULL_STATE_DICT"

# Of DeepSpeed, filled in by transformers with its own arguments.
_BY_ARGUMENTS: dict[str, Any] = {
    **dict.fromkeys(
        ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"),
        "auto",
    ),
    **{name: {"enabled": "auto"} for name in ("bf16", "fp16")},
}


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of transformers with all that the one for the spread model needs."""
    if config.get("deepspeed"):
        return {**config, "deepspeed": _deepspeed(config["deepspeed"])}
    if config.get("fsdp"):
        own = {"version": 2, "state_dict_type": WHOLE if config.get("save_only_model") else SHARDED}
        return {**config, "fsdp_config": {**own, **(config.get("fsdp_config") or {})}}
    return dict(config)


def on_cpus(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments for workers without GPUs. Accelerate takes DeepSpeed there from a state that is made beforehand."""
    if config.get("deepspeed"):
        return {**config, "accelerator_config": {**(config.get("accelerator_config") or {}), **_PREPARED}}
    return {**config, "use_cpu": True}


_PREPARED = {"use_configured_state": True}


def _deepspeed(given: Mapping[str, Any]) -> dict[str, Any]:
    """With the whole weights of ZeRO-3 in what is saved, and an optimizer that runs where its states are kept."""
    zero = dict(given.get("zero_optimization") or {})
    if zero.get("stage") == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    own = {"zero_force_ds_cpu_optimizer": False} if _offloads(zero) else {}
    return {**_BY_ARGUMENTS, **own, **given, "zero_optimization": zero}


def _offloads(zero: Mapping[str, Any]) -> bool:
    return bool((zero.get("offload_optimizer") or {}).get("device", "none") != "none")
