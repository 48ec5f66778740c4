"""The values that TRL will use: of the recipe, of the runner's defaults, or TRL's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.sections.recipe import Recipe
from stages.trainers import other_names
from stages.trainers.accelerate.mappings import TRL
from stages.trainers.other_names import Same

METHODS = ("sft", "pt", "dpo", "kto")  # of `train.stage`

# Where a recipe names none of these. They differ from TRL's own, so that a recipe that changes its trainer trains
# the same: LoRA's alpha is besides twice its rank.
DEFAULTS: dict[str, Any] = {
    "max_length": 2048,
    "bf16": False,
    "lora_dropout": 0.0,
    "logging_steps": 1,
    "logging_nan_inf_filter": False,  # which would log 0.0 for a loss that is not a number
    "save_strategy": "steps",
    "save_steps": 100,
    "report_to": "none",
    "disable_tqdm": True,
}
# Where a recipe names none of these and workers have no GPU: as LLaMA-Factory's, see `stages.trainers.llamafactory`.
CPU_DEFAULTS: dict[str, Any] = {"gradient_checkpointing": False, "attn_implementation": "eager"}
AUTO = "auto"  # attention that transformers chooses


SAME = {"cutoff_len": Same("max_length"), **other_names.SAME}


def translated(args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by TRL's names, without those that are not given (null)."""
    return other_names.translated(args, SAME)


def defaults_of(recipe: Recipe) -> dict[str, Any]:
    """The runner's defaults for the recipe's workers."""
    return DEFAULTS if recipe.resources_of("train").gpus_per_worker else {**DEFAULTS, **CPU_DEFAULTS}


def length_name(recipe: Recipe) -> str:
    """The argument by which the recipe says how long a row may be."""
    return "cutoff_len" if recipe.train.args.get("cutoff_len") is not None else "max_length"


def method_of(recipe: Recipe) -> str:
    """The method whose configuration TRL is given: pretraining is supervised training on whole texts."""
    return "sft" if recipe.train.stage == "pt" else recipe.train.stage


def _spread_in_float32(recipe: Recipe) -> bool:
    """Whether a model is spread over the workers that is to be computed in float32, and so has to be held in it."""
    args = translated(recipe.train.args)
    return bool(args.get("deepspeed") or args.get("fsdp")) and not (args.get("bf16") or args.get("fp16"))


def argument(recipe: Recipe, name: str) -> Any:
    """The value that TRL will use: of `train.args`, else the runner's default, else its own."""
    args = translated(recipe.train.args)
    if name in args:
        return args[name]
    if name == "lora_alpha":
        return 2 * recipe.train.lora_rank
    if name == "dtype":
        return "float32" if args.get("finetuning_type") == "full" or _spread_in_float32(recipe) else "auto"
    if name in (defaults := defaults_of(recipe)):
        return defaults[name]
    own = TRL.content.get(method_of(recipe), {})
    return own.get(name, TRL.table("arguments").get(name, {})).get("default")
