"""A recipe's training by TRL in the words that trainers share."""

from __future__ import annotations

from stages.sections.recipe import Recipe
from stages.trainers import on_transformers
from stages.trainers.accelerate.values import argument, length_name
from stages.trainers.memory import Setup

# Arguments that shard, shrink or offload what is counted of the memory.
_UNCOUNTED = (
    "deepspeed", "fsdp", "load_in_4bit", "load_in_8bit", "packing", "use_dora", "lora_modules_to_save",
    "activation_offloading",
)  # fmt: skip
_NAMES = {
    "batch": "train.args.per_device_train_batch_size",
    "gather": "train.args.gradient_accumulation_steps",
    "checkpointed": "train.args.gradient_checkpointing=true",
    "kind": "train.args.finetuning_type=lora",
}
_ROWS_BY = ("packing", "val_size")


def setup_of(recipe: Recipe) -> Setup:
    """What decides on the memory and the steps of the recipe's training. TRL's losses never hold all logits."""
    return on_transformers.setup_of(
        recipe,
        argument,
        length="max_length",
        uncounted=_UNCOUNTED,
        rows_by=_ROWS_BY,
        eager=argument(recipe, "attn_implementation") == "eager",
        checkpointed=bool(argument(recipe, "gradient_checkpointing")),
        fused_loss=True,
        names={**_NAMES, "length": f"train.args.{length_name(recipe)}", **_checkpointing(recipe)},
    )


def _checkpointing(recipe: Recipe) -> dict[str, str]:
    """The name by which the recipe switches it off."""
    named = recipe.train.args.get("disable_gradient_checkpointing") is not None
    return {"checkpointed": "train.args.disable_gradient_checkpointing=false"} if named else {}
