"""A recipe's training by LLaMA-Factory in the words that trainers share."""

from __future__ import annotations

from stages.sections.recipe import Recipe
from stages.trainers.llamafactory.values import argument
from stages.trainers.memory import Setup

# Arguments that shard, shrink or offload what is counted of the memory.
_UNCOUNTED = (
    "deepspeed", "fsdp", "quantization_bit", "use_galore", "use_apollo", "use_badam", "use_unsloth", "pure_bf16",
    "packing", "neat_packing", "use_dora", "additional_target", "use_muon", "use_adam_mini",
)  # fmt: skip
_NAMES = {
    "batch": "train.args.per_device_train_batch_size",
    "gather": "train.args.gradient_accumulation_steps",
    "length": "train.args.cutoff_len",
    "checkpointed": "train.args.disable_gradient_checkpointing=false",
    "kind": "train.args.finetuning_type=lora",
    "fused_loss": "train.args.enable_liger_kernel=true",
    "bits": "train.args.quantization_bit=4",
}
_ROWS_BY = ("packing", "neat_packing", "streaming", "val_size")


def setup_of(recipe: Recipe) -> Setup:
    """What decides on the memory and the steps of the recipe's training."""
    return Setup(
        kind=argument(recipe, "finetuning_type"),
        batch=int(argument(recipe, "per_device_train_batch_size")),
        gather=int(argument(recipe, "gradient_accumulation_steps")),
        length=int(argument(recipe, "cutoff_len")),
        max_steps=max(0, int(argument(recipe, "max_steps"))),
        optimizer=argument(recipe, "optim"),
        weights_only=bool(argument(recipe, "save_only_model")),
        half=bool(argument(recipe, "bf16") or argument(recipe, "fp16")),
        eager=argument(recipe, "flash_attn") == "disabled",
        checkpointed=not argument(recipe, "disable_gradient_checkpointing"),
        fused_loss=bool(argument(recipe, "enable_liger_kernel")),
        uncounted=_first(recipe, _UNCOUNTED),
        rows_by=_first(recipe, _ROWS_BY),
        names=_NAMES,
    )


def _first(recipe: Recipe, names: tuple[str, ...]) -> str:
    """The first of the arguments that is set, "" for none."""
    return next((name for name in names if argument(recipe, name)), "")
