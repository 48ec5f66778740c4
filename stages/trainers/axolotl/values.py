"""The values that axolotl will use: of the recipe, of the runner's defaults, or axolotl's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.sections.recipe import Recipe
from stages.trainers import other_names
from stages.trainers.axolotl.mappings import AXOLOTL
from stages.trainers.other_names import Same

METHODS = ("sft", "pt")  # of `train.stage`

# Where a recipe names none of these. They differ from axolotl's own, so that a recipe that changes its trainer trains
# the same: LoRA's alpha is besides twice its rank.
DEFAULTS: dict[str, Any] = {
    "micro_batch_size": 8,
    "eval_batch_size": 8,
    "sequence_len": 2048,
    "pad_to_multiple_of": 8,
    "lr_scheduler": "linear",
    "warmup_steps": 0,
    "gradient_checkpointing": True,
    "logging_steps": 1,
    "save_strategy": "steps",
    "save_steps": 100,
    "dataloader_num_workers": 0,
    "fp16": False,
    "bf16": False,
    "tf32": False,
}
# Where a recipe names none of these and workers have no GPU: as LLaMA-Factory's, see `stages.trainers.llamafactory`.
CPU_DEFAULTS: dict[str, Any] = {
    "gradient_checkpointing": False,
    "attn_implementation": "eager",
    "dataloader_pin_memory": False,
}
AUTO = "auto"  # attention that transformers chooses


SAME = {
    "cutoff_len": Same("sequence_len"),
    "per_device_train_batch_size": Same("micro_batch_size"),
    "per_device_eval_batch_size": Same("eval_batch_size"),
    "optim": Same("optimizer"),
    "lr_scheduler_type": Same("lr_scheduler"),
    "train_on_prompt": Same("train_on_inputs"),
    "use_dora": Same("peft_use_dora"),
    "use_rslora": Same("peft_use_rslora"),
    **other_names.SAME,
}


def translated(args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by axolotl's names, without those that are not given (null)."""
    return other_names.translated(args, SAME)


def name_in(recipe: Recipe, name: str) -> str:
    """The name by which the recipe sets an argument of axolotl's: LLaMA-Factory's where it has that one."""
    given = [other for other, same in SAME.items() if same.name == name and recipe.train.args.get(other) is not None]
    return given[0] if given else name


def defaults_of(recipe: Recipe) -> dict[str, Any]:
    """The runner's defaults for the recipe's workers, without those that another argument of the recipe replaces."""
    args = translated(recipe.train.args)
    found = dict(DEFAULTS) if recipe.resources_of("train").gpus_per_worker else {**DEFAULTS, **CPU_DEFAULTS}
    if args.get("save_strategy", "steps") != "steps":
        del found["save_steps"]
    if "warmup_ratio" in args:
        del found["warmup_steps"]
    return found


def argument(recipe: Recipe, name: str) -> Any:
    """The value that axolotl will use: of `train.args`, else the runner's default, else its own.

    name: axolotl's, or LLaMA-Factory's of an argument that has the same values.
    """
    if name in SAME:
        return SAME[name].value(argument(recipe, SAME[name].name))
    args = translated(recipe.train.args)
    if name in args:
        return args[name]
    if name == "lora_alpha":
        return 2 * recipe.train.lora_rank
    if name in (defaults := defaults_of(recipe)):
        return defaults[name]
    return AXOLOTL.table("arguments").get(name, {}).get("default")
