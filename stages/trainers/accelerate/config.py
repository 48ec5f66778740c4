"""A recipe as what TRL, PEFT and transformers are told: pure functions, compared with golden files."""

from __future__ import annotations

from typing import Any

from runner.errors import RunnerError
from stages.sections.recipe import Recipe
from stages.trainers.accelerate import sharding
from stages.trainers.accelerate.mappings import RESERVED_ARGS
from stages.trainers.accelerate.values import AUTO, argument, defaults_of, method_of, translated

# What they change is how a training is watched, or how fast it reads its rows.
WITHOUT_EFFECT = (
    "report_to", "run_name", "disable_tqdm", "log_level", "log_level_replica", "dataloader_num_workers",
    "dataloader_pin_memory",
)  # fmt: skip

MEMORY_HINT = (
    "Lower train.args.per_device_train_batch_size or train.args.max_length, or leave gradient checkpointing on "
    "(train.args.gradient_checkpointing: true); train.args.gradient_accumulation_steps keeps the batch."
)

# Arguments of TRL that are not of its configurations of training.
_OF_LORA = ("lora_alpha", "lora_dropout", "lora_modules_to_save", "use_rslora", "use_dora")
_OF_THE_MODEL = ("dtype", "attn_implementation")
_OF_QUANTIZATION = (
    "load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type", "use_bnb_nested_quant", "bnb_4bit_quant_storage",
)  # fmt: skip
_OF_THE_RUNNER = ("finetuning_type", "eval_dataset", "val_size", "mask_history", "train_on_prompt")


def trl_args(recipe: Recipe, *, model: str, dataset_dir: str, output_dir: str, tokens: str) -> dict[str, Any]:
    """The recipe as keyword arguments: `config` of SFTConfig, DPOConfig or KTOConfig, `lora` of LoraConfig, `model` of
    AutoModelForCausalLM.from_pretrained, `quantization` of BitsAndBytesConfig; None for what is not used.

    Raises RunnerError when `train.args` holds an argument that is the runner's to set.
    """
    args = translated(recipe.train.args)
    _refuse_reserved(args)
    return {
        "method": recipe.train.stage,
        "config": _config(recipe, args),
        "lora": _lora(recipe) if argument(recipe, "finetuning_type") == "lora" else None,
        "model": _model(recipe),
        "quantization": _quantization(recipe),
        "model_name_or_path": model,
        "trust_remote_code": recipe.model.trust_remote_code,
        "on_cpus": not recipe.resources_of("train").gpus_per_worker,
        "dataset_dir": dataset_dir,
        "tokenized_path": tokens,
        "output_dir": output_dir,
    }


def _config(recipe: Recipe, args: dict[str, Any]) -> dict[str, Any]:
    train, resources = recipe.train, recipe.resources_of("train")
    apart = {*_OF_LORA, *_OF_THE_MODEL, *_OF_QUANTIZATION, *_OF_THE_RUNNER}
    config: dict[str, Any] = {
        "learning_rate": train.learning_rate,
        "num_train_epochs": train.num_epochs,
        "seed": recipe.seed,
        "save_total_limit": train.checkpoints.keep,
        **{name: value for name, value in defaults_of(recipe).items() if name not in apart},
        **{name: value for name, value in args.items() if name not in apart},
    }
    if method_of(recipe) == "sft":
        config |= _whole_rows(recipe, packs=bool(args.get("packing")))
    config = sharding.completed(config)
    if not resources.gpus_per_worker:
        config = sharding.on_cpus(config)
        if resources.most_workers > 1:
            config.setdefault("ddp_backend", "gloo")
    return config


def _whole_rows(recipe: Recipe, *, packs: bool) -> dict[str, Any]:
    """Rows are within the limit already, and texts for pretraining in blocks of it."""
    if packs and recipe.train.stage == "sft":
        return {"packing": True}
    return {"packing": False, "dataset_kwargs": {"skip_prepare_dataset": True}}


def _lora(recipe: Recipe) -> dict[str, Any]:
    target = recipe.train.lora_target
    return {
        "r": recipe.train.lora_rank,
        "lora_alpha": argument(recipe, "lora_alpha"),
        "lora_dropout": argument(recipe, "lora_dropout"),
        "target_modules": "all-linear" if target == "all" else [name.strip() for name in target.split(",")],
        "modules_to_save": argument(recipe, "lora_modules_to_save"),
        "use_rslora": bool(argument(recipe, "use_rslora")),
        "use_dora": bool(argument(recipe, "use_dora")),
        "task_type": "CAUSAL_LM",
    }


def _model(recipe: Recipe) -> dict[str, Any]:
    attention = argument(recipe, "attn_implementation")
    found = {"dtype": argument(recipe, "dtype"), "attn_implementation": None if attention == AUTO else attention}
    return {name: value for name, value in found.items() if value is not None}


def _quantization(recipe: Recipe) -> dict[str, Any] | None:
    if argument(recipe, "load_in_8bit"):
        return {"load_in_8bit": True}
    if not argument(recipe, "load_in_4bit"):
        return None
    compute = "bfloat16" if argument(recipe, "bf16") else "float16" if argument(recipe, "fp16") else "float32"
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": argument(recipe, "bnb_4bit_quant_type"),
        "bnb_4bit_use_double_quant": bool(argument(recipe, "use_bnb_nested_quant")),
        "bnb_4bit_quant_storage": argument(recipe, "bnb_4bit_quant_storage"),
        "bnb_4bit_compute_dtype": compute,
    }


def _refuse_reserved(args: dict[str, Any]) -> None:
    for name in args:
        if name in RESERVED_ARGS:
            raise RunnerError(f"train.args.{name}={args[name]!r} is not for a recipe to set", f"{RESERVED_ARGS[name]}.")
