"""The key of the recipe whose value goes to axolotl, and what it and LLaMA-Factory call things."""

from __future__ import annotations

import json
from pathlib import Path

from runner.recipe.arguments import Library
from runner.recipe.arguments.mapped import Mapped

AXOLOTL = Library("axolotl", "axolotl", Path(__file__).with_name("arguments.json"))


def _reserved() -> dict[str, str]:
    """Arguments that the recipe has a key for, that are the runner's to set, or that it does not pass on: why.

    `refused.json` has them by reason.
    """
    reasons = json.loads(Path(__file__).with_name("refused.json").read_text(encoding="utf-8"))
    return {name: reason for reason, names in reasons.items() for name in names}


RESERVED_ARGS = _reserved()

# What LLaMA-Factory, PEFT and command lines call it.
_OTHER_NAMES = {
    "lora_rank": ("lora_r",),
    "r": ("lora_r",),
    "rank": ("lora_r",),
    "epochs": ("num_epochs",),
    "num_train_epochs": ("num_epochs",),
    "lr": ("learning_rate",),
    "alpha": ("lora_alpha",),
    "dropout": ("lora_dropout",),
    "lora_target": ("lora_target_modules",),
    "target_modules": ("lora_target_modules",),
    "additional_target": ("lora_modules_to_save",),
    "modules_to_save": ("lora_modules_to_save",),
    "max_length": ("sequence_len",),
    "max_seq_length": ("sequence_len",),
    "max_seq_len": ("sequence_len",),
    "packing": ("sample_packing",),
    "neat_packing": ("sample_packing",),
    "evaluation_strategy": ("eval_strategy",),
    "quantization_bit": ("load_in_4bit",),
    "pref_beta": ("rl_beta",),
    "beta": ("rl_beta",),
    "report_to": ("use_tensorboard",),
    "use_reentrant_gc": ("gradient_checkpointing_kwargs",),
    "disable_shuffling": ("curriculum_sampling",),
    "preprocessing_num_workers": ("dataset_num_proc",),
    "model_name_or_path": ("base_model",),
    "use_cpu": ("device",),
}

MAPPINGS = (
    Mapped(
        "train.args",
        "argument",
        lambda recipe: recipe.train.args,
        AXOLOTL,
        ("arguments",),
        RESERVED_ARGS,
        null_drops=True,
        other_names=_OTHER_NAMES,
        group="training",
    ),
)
