"""The key of the recipe whose value goes to TRL, and what it and LLaMA-Factory call things."""

from __future__ import annotations

from pathlib import Path

from runner.recipe.arguments import Library
from runner.recipe.arguments.mapped import Mapped

TRL = Library("trl", "TRL", Path(__file__).with_name("arguments.json"))

_BY_TOKENS = "rows come as tokens, with the parts that are learned; see train.reasoning and train.too_long"
# Arguments that the recipe has a key for, and those that are the runner's to set: what to do instead.
RESERVED_ARGS = {
    "seed": "set seed",
    "learning_rate": "set train.learning_rate",
    "num_train_epochs": "set train.num_epochs",
    "lora_r": "set train.lora_rank",
    "lora_target_modules": "set train.lora_target",
    "use_peft": "set train.args.finetuning_type",
    "model_name_or_path": "set model.source",
    "model_revision": "set model.revision",
    "trust_remote_code": "set model.trust_remote_code",
    "chat_template_path": "set model.chat_template",
    "save_total_limit": "set train.checkpoints.keep",
    "truncation_mode": "set train.too_long",
    "output_dir": "see storage.root",
    "resume_from_checkpoint": "see train.max_failures",
    "do_train": "see pipeline",
    "do_eval": "see train.args.eval_dataset",
    "do_predict": "see pipeline",
    "use_cpu": "see resources.train.gpus_per_worker",
    "lora_task_type": "models are trained to write text",
    "model_init_kwargs": "set train.args.dtype and train.args.attn_implementation",
    "assistant_only_loss": _BY_TOKENS,
    "completion_only_loss": _BY_TOKENS,
    "dataset_kwargs": _BY_TOKENS,
    "dataset_num_proc": _BY_TOKENS,
    "dataset_text_field": _BY_TOKENS,
    "eos_token": _BY_TOKENS,
    "pad_token": _BY_TOKENS,
    "padding_free": "see train.args.packing",
    "remove_unused_columns": _BY_TOKENS,
    "label_names": _BY_TOKENS,
    "include_for_metrics": "training computes no metrics but the loss",
    "batch_eval_metrics": "training computes no metrics but the loss",
    "lora_target_parameters": "set train.lora_target, whose adapters the engine loads",
    "local_rank": "see resources.train.num_workers",
    "parallelism_config": "see resources.train.num_workers",
}

# What LLaMA-Factory and command lines call it.
_OTHER_NAMES = {
    "lora_rank": ("lora_r",),
    "batch_size": ("per_device_train_batch_size",),
    "epochs": ("num_train_epochs",),
    "lr": ("learning_rate",),
    "r": ("lora_r",),
    "rank": ("lora_r",),
    "alpha": ("lora_alpha",),
    "dropout": ("lora_dropout",),
    "lora_target": ("lora_target_modules",),
    "target_modules": ("lora_target_modules",),
    "additional_target": ("lora_modules_to_save",),
    "modules_to_save": ("lora_modules_to_save",),
    "quantization_bit": ("load_in_4bit",),
    "quantization_type": ("bnb_4bit_quant_type",),
    "double_quantization": ("use_bnb_nested_quant",),
    "max_seq_length": ("max_length",),
    "max_seq_len": ("max_length",),
    "evaluation_strategy": ("eval_strategy",),
    "enable_liger_kernel": ("use_liger_kernel",),
    "use_reentrant_gc": ("gradient_checkpointing_kwargs",),
    "neat_packing": ("packing",),
    "pure_bf16": ("dtype",),
    "torch_dtype": ("dtype",),
    "infer_dtype": ("dtype",),
    "pref_beta": ("beta",),
    "pref_loss": ("loss_type",),
    "dpo_label_smoothing": ("label_smoothing",),
    "kto_chosen_weight": ("desirable_weight",),
    "kto_rejected_weight": ("undesirable_weight",),
    "use_dft_loss": ("loss_type",),
    "disable_shuffling": ("train_sampling_strategy",),
    "moe_aux_loss_coef": ("router_aux_loss_coef",),
    "preprocessing_num_workers": ("dataset_num_proc",),
}

MAPPINGS = (
    Mapped(
        "train.args",
        "argument",
        lambda recipe: recipe.train.args,
        TRL,
        ("arguments",),
        RESERVED_ARGS,
        null_drops=True,
        other_names=_OTHER_NAMES,
        group="training",
    ),
)
