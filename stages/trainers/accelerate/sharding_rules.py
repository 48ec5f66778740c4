"""Rules about a model that is spread over the workers: which settings DeepSpeed and FSDP take here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from runner.errors import Problem
from runner.recipe.arguments import Entry
from stages.sections.recipe import Recipe
from stages.trainers.accelerate.sharding import SHARDED, WHOLE
from stages.trainers.accelerate.values import argument
from stages.trainers.rules.conflicts import Conflict
from stages.trainers.rules.spread import CONFLICTS as CONFLICTS_OF_ALL
from stages.trainers.rules.spread import FLAG, LIMIT, SIZE, WRAPPED, Section, within

_FILLED_IN: Entry = {"type": "int", "ge": 0, "choices": ["auto"]}  # from the model's size
_PLACE: Entry = {"choices": ["cpu", "none"]}

# Settings that a recipe may give, and the mappings in them; all others are refused.
_DEEPSPEED: Section = {"zero_optimization": {"type": "dict"}}
_ZERO: Section = {
    "stage": {"choices": [1, 2, 3]},
    **dict.fromkeys(("allgather_bucket_size", "sub_group_size"), SIZE),
    "reduce_bucket_size": {"type": "int", "ge": 1, "choices": ["auto"]},
    **dict.fromkeys(
        ("allgather_partitions", "contiguous_gradients", "overlap_comm", "reduce_scatter", "round_robin_gradients"),
        FLAG,
    ),
    **dict.fromkeys(("stage3_max_live_parameters", "stage3_max_reuse_distance"), LIMIT),
    **dict.fromkeys(("stage3_param_persistence_threshold", "stage3_prefetch_bucket_size"), _FILLED_IN),
    "offload_optimizer": {"type": "dict"},
    "offload_param": {"type": "dict"},
}
_OFFLOAD: Section = {"device": _PLACE, "pin_memory": FLAG, "ratio": {"type": "float", "ge": 0, "le": 1}}
_FSDP: Section = {
    "version": {"choices": [2]},
    "reshard_after_forward": FLAG,
    "activation_checkpointing": FLAG,
    "auto_wrap_policy": {"choices": ["TRANSFORMER_BASED_WRAP", "SIZE_BASED_WRAP", "NO_WRAP"]},
    "transformer_layer_cls_to_wrap": WRAPPED,
    "min_num_params": LIMIT,
    "state_dict_type": {"choices": [SHARDED, WHOLE]},
}
_FSDP_WORDS = ("full_shard", "shard_grad_op", "auto_wrap")
# Of DeepSpeed's settings, what the recipe says otherwise.
_BY_ARGUMENTS = {
    "gradient_clipping": "set train.args.max_grad_norm",
    "gradient_accumulation_steps": "set train.args.gradient_accumulation_steps",
    "train_batch_size": "set train.args.per_device_train_batch_size",
    "train_micro_batch_size_per_gpu": "set train.args.per_device_train_batch_size",
    "bf16": "set train.args.bf16",
    "fp16": "set train.args.fp16",
    "optimizer": "set train.args.optim",
    "scheduler": "set train.args.lr_scheduler_type",
}
_BITS = ("load_in_4bit", "load_in_8bit")
_taken = partial(within, trainer="accelerate")


def _checkpoints(fsdp_config: Any) -> Any:
    return fsdp_config.get("state_dict_type") if isinstance(fsdp_config, Mapping) else None


CONFLICTS = (
    *CONFLICTS_OF_ALL,
    Conflict(
        "save_only_model",
        lambda get: get("save_only_model") and _checkpoints(get("fsdp_config")) == SHARDED,
        f"saves the model in one piece, and fsdp_config.state_dict_type={SHARDED}",
        "Remove train.args.fsdp_config.state_dict_type.",
    ),
    *(
        Conflict(
            name,
            lambda get, name=name: get(name) and (get("deepspeed") or get("fsdp")),  # type: ignore[misc]
            "does not go with a model that is spread over the workers (deepspeed, fsdp)",
            "Remove it, or what spreads the model.",
        )
        for name in _BITS
    ),
)  # fmt: skip


def settings_are_keys(recipe: Recipe) -> Iterator[Problem]:
    """What a file says would be neither checked nor part of the fingerprint."""
    for name in ("deepspeed", "fsdp_config"):
        if isinstance(given := argument(recipe, name), str):
            message = "names a file, and train.trainer=accelerate takes keys"
            yield Problem(f"train.args.{name}", given, message, "Write here what the file says.")


def deepspeed_computes_here(recipe: Recipe) -> Iterator[Problem]:
    given = argument(recipe, "deepspeed")
    if given and argument(recipe, "bf16") and recipe.cluster.accelerator == "cpu" and "train" in recipe.pipeline:
        message = "is not computed by DeepSpeed on CPUs"
        yield Problem("train.args.bf16", True, message, "Set train.args.bf16=false, or remove train.args.deepspeed.")


def deepspeed_is_by_keys(recipe: Recipe) -> Iterator[Problem]:
    given, key = argument(recipe, "deepspeed"), "train.args.deepspeed"
    if not isinstance(given, Mapping):
        return
    for name in sorted(_BY_ARGUMENTS.keys() & given.keys()):
        message = "is filled in from what the recipe says otherwise"
        yield Problem(f"{key}.{name}", given[name], message, f"Remove it; {_BY_ARGUMENTS[name]}.")
    yield from _taken(key, {name: given[name] for name in given if name not in _BY_ARGUMENTS}, _DEEPSPEED)
    zero = given.get("zero_optimization")
    if not isinstance(zero, Mapping):
        if "zero_optimization" not in given:
            yield Problem(key, dict(given), "names no zero_optimization", f"Set {key}.zero_optimization.stage=3.")
        return
    yield from _taken(f"{key}.zero_optimization", zero, _ZERO)
    yield from _zero_agrees(f"{key}.zero_optimization", zero)


def _zero_agrees(key: str, zero: Mapping[str, Any]) -> Iterator[Problem]:
    if "stage" not in zero:
        yield Problem(key, dict(zero), "names no stage", f"Set {key}.stage=3.")
    for name in ("offload_optimizer", "offload_param"):
        if isinstance(zero.get(name), Mapping):
            yield from _taken(f"{key}.{name}", zero[name], _OFFLOAD)
    for name in zero:
        if (name.startswith("stage3_") or name == "offload_param") and zero.get("stage") != 3:
            yield Problem(f"{key}.{name}", zero[name], "goes with stage=3 only", f"Remove it, or set {key}.stage=3.")


def fsdp_is_by_keys(recipe: Recipe) -> Iterator[Problem]:
    words, given = argument(recipe, "fsdp"), argument(recipe, "fsdp_config")
    for word in words.split() if isinstance(words, str) else ():
        if word not in _FSDP_WORDS:
            message = f"must be of {', '.join(_FSDP_WORDS)}"
            yield Problem("train.args.fsdp", words, message, "Set train.args.fsdp=full_shard.")
    if isinstance(given, Mapping):
        yield from _taken("train.args.fsdp_config", given, _FSDP)


RULES = (settings_are_keys, deepspeed_is_by_keys, deepspeed_computes_here, fsdp_is_by_keys)
