"""A recipe's training by LLaMA-Factory in the words that trainers share."""

from __future__ import annotations

from stages.sections.recipe import Recipe
from stages.trainers import on_transformers
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
    return on_transformers.setup_of(
        recipe,
        argument,
        length="cutoff_len",
        uncounted=_UNCOUNTED,
        rows_by=_ROWS_BY,
        eager=argument(recipe, "flash_attn") == "disabled",
        checkpointed=not argument(recipe, "disable_gradient_checkpointing"),
        fused_loss=bool(argument(recipe, "enable_liger_kernel")),
        names=_NAMES,
    )
