"""A recipe's training by axolotl in the words that trainers share."""

from __future__ import annotations

from stages.sections.recipe import Recipe
from stages.trainers import on_transformers
from stages.trainers.axolotl.values import argument, name_in
from stages.trainers.memory import Setup

# Arguments that change what is counted of the memory.
_UNCOUNTED = ("peft_use_dora", "lora_modules_to_save")
_ROWS_BY = ("val_size",)


def setup_of(recipe: Recipe) -> Setup:
    """What decides on the memory and the steps of the recipe's training."""
    return on_transformers.setup_of(
        recipe,
        argument,
        length="sequence_len",
        uncounted=_UNCOUNTED,
        rows_by=_ROWS_BY,
        eager=argument(recipe, "attn_implementation") == "eager",
        checkpointed=bool(argument(recipe, "gradient_checkpointing")),
        fused_loss=False,
        wide=not argument(recipe, "bf16") and not argument(recipe, "fp16"),
        names={
            "batch": f"train.args.{name_in(recipe, 'micro_batch_size')}",
            "gather": "train.args.gradient_accumulation_steps",
            "checkpointed": _checkpointing(recipe),
            "kind": "train.args.finetuning_type=lora",
            "length": f"train.args.{name_in(recipe, 'sequence_len')}",
        },
    )


def _checkpointing(recipe: Recipe) -> str:
    """What switches it on, by the recipe's name."""
    name = name_in(recipe, "gradient_checkpointing")
    return f"train.args.{name}={'true' if name == 'gradient_checkpointing' else 'false'}"
