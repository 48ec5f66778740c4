"""The key of the recipe whose value goes to LLaMA-Factory, and what it calls things."""

from __future__ import annotations

from pathlib import Path

from runner.recipe.arguments import Library
from runner.recipe.arguments.mapped import Mapped
from stages.trainers.llamafactory.arguments import RESERVED_ARGS

LLAMAFACTORY = Library("llamafactory", "LLaMA-Factory", Path(__file__).with_name("arguments.json"))

# What PEFT, Transformers, TRL and command lines call it.
_OTHER_NAMES = {
    "batch_size": ("per_device_train_batch_size",),
    "epochs": ("num_train_epochs",),
    "lr": ("learning_rate",),
    "r": ("lora_rank",),
    "rank": ("lora_rank",),
    "alpha": ("lora_alpha",),
    "dropout": ("lora_dropout",),
    "target_modules": ("lora_target",),
    "modules_to_save": ("additional_target",),
    "load_in_4bit": ("quantization_bit",),
    "load_in_8bit": ("quantization_bit",),
    "max_length": ("cutoff_len",),
    "max_seq_length": ("cutoff_len",),
    "max_seq_len": ("cutoff_len",),
    "evaluation_strategy": ("eval_strategy",),
    "attn_implementation": ("flash_attn",),
}

MAPPINGS = (
    Mapped(
        "train.args",
        "argument",
        lambda recipe: recipe.train.args,
        LLAMAFACTORY,
        ("arguments",),
        {
            **{name: f"set {key}" for name, key in RESERVED_ARGS.items()},
            "template": "set model.template",
            "stage": "set train.stage",
            "dataset": "set dataset.source",
            "default_system": "set dataset.prompt.system",
            "model_revision": "set model.revision",
        },
        null_drops=True,
        other_names=_OTHER_NAMES,
        group="training",
    ),
)
