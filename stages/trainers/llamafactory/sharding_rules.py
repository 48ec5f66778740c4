"""Rules about a model that LLaMA-Factory spreads over the workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runner.errors import Problem
from stages.sections.recipe import Recipe
from stages.trainers.llamafactory.values import argument
from stages.trainers.rules.spread import FLAG, LIMIT, WRAPPED, Section, within

# Of `fsdp_config`, what transformers 5.6 reads; it says nothing of others.
_FSDP: Section = {
    "version": {"choices": [1, 2]},
    "reshard_after_forward": {"type": "bool", "choices": ["full_shard", "shard_grad_op", "hybrid_shard", "no_shard"]},
    "min_num_params": LIMIT,
    "transformer_layer_cls_to_wrap": WRAPPED,
    "backward_prefetch": {"choices": ["NO_PREFETCH", "BACKWARD_PRE", "BACKWARD_POST"]},
    **dict.fromkeys(
        ("forward_prefetch", "use_orig_params", "sync_module_states", "cpu_ram_efficient_loading", "limit_all_gathers",
         "activation_checkpointing"), FLAG,
    ),
}  # fmt: skip
_GATHERS = "stage3_gather_16bit_weights_on_model_save"


def fsdp_is_by_keys(recipe: Recipe) -> Iterator[Problem]:
    given = argument(recipe, "fsdp_config")
    if isinstance(given, Mapping):
        yield from within("train.args.fsdp_config", given, _FSDP, "llamafactory")


def the_whole_model_is_left(recipe: Recipe) -> Iterator[Problem]:
    """Without it DeepSpeed leaves the shards of the workers, of which LLaMA-Factory makes no model."""
    given = argument(recipe, "deepspeed")
    zero: Any = given.get("zero_optimization") if isinstance(given, Mapping) else None
    if isinstance(zero, Mapping) and zero.get("stage") == 3 and zero.get(_GATHERS) is not True:
        key = f"train.args.deepspeed.zero_optimization.{_GATHERS}"
        message = "must be true with stage=3, or no weights are left"
        yield Problem(key, zero.get(_GATHERS), message, f"Set {key}=true.")


RULES = (fsdp_is_by_keys, the_whole_model_is_left)
