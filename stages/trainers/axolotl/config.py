"""A recipe as axolotl's configuration: pure functions, compared with golden files."""

from __future__ import annotations

from typing import Any

from runner.errors import RunnerError
from stages.sections.recipe import Recipe
from stages.trainers.axolotl.mappings import RESERVED_ARGS
from stages.trainers.axolotl.values import AUTO, argument, defaults_of, translated

# What they change is how fast a training reads its rows.
WITHOUT_EFFECT = ("dataloader_num_workers", "dataloader_pin_memory", "dataloader_prefetch_factor")

MEMORY_HINT = (
    "Lower train.args.micro_batch_size or train.args.sequence_len, or leave gradient checkpointing on "
    "(train.args.gradient_checkpointing: true); train.args.gradient_accumulation_steps keeps the batch."
)

# Arguments that say which rows there are and how they are learned, which is done before axolotl has them.
OF_THE_RUNNER = ("finetuning_type", "eval_dataset", "val_size", "mask_history", "train_on_inputs", "train_on_prompt")
# axolotl would turn its own kernels on by itself.
_KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel")
_NOT_GIVEN: dict[str, Any] = {"attn_implementation": AUTO, "eval_strategy": "no", "max_steps": -1}


def axolotl_args(recipe: Recipe, *, model: str, dataset_dir: str, output_dir: str, tokens: str) -> dict[str, Any]:
    """The recipe as `config`, which axolotl checks and trains by, `trainer`, arguments of transformers' trainer that
    axolotl has no names for, and where the inputs are.

    Raises RunnerError when `train.args` holds an argument that is the runner's to set.
    """
    _refuse_reserved(recipe.train.args)
    return {
        "config": _config(recipe),
        "trainer": _trainer(recipe),
        "model_name_or_path": model,
        "trust_remote_code": recipe.model.trust_remote_code,
        "dataset_dir": dataset_dir,
        "tokenized_path": tokens,
        "output_dir": output_dir,
    }


def _trainer(recipe: Recipe) -> dict[str, Any]:
    """A loss that is not a number is logged as such, and what is evaluated are the steps that the recipe says."""
    resources = recipe.resources_of("train")
    found: dict[str, Any] = {"logging_nan_inf_filter": False, "eval_on_start": False, "disable_tqdm": True}
    if not resources.gpus_per_worker:
        found["use_cpu"] = True
        if resources.most_workers > 1:
            found["ddp_backend"] = "gloo"
    return found


def _config(recipe: Recipe) -> dict[str, Any]:
    given = {**defaults_of(recipe), **translated(recipe.train.args)}
    return {
        "learning_rate": recipe.train.learning_rate,
        "num_epochs": recipe.train.num_epochs,
        "seed": recipe.seed,
        "save_total_limit": recipe.train.checkpoints.keep,
        "trust_remote_code": recipe.model.trust_remote_code,
        "include_tkps": False,
        **dict.fromkeys(_KERNELS, False),
        **(_lora(recipe) if argument(recipe, "finetuning_type") == "lora" else {}),
        **{name: value for name, value in given.items() if name not in OF_THE_RUNNER and _is_given(name, value)},
    }


def _is_given(name: str, value: Any) -> bool:
    return name not in _NOT_GIVEN or value != _NOT_GIVEN[name]


def _lora(recipe: Recipe) -> dict[str, Any]:
    target = recipe.train.lora_target
    modules: dict[str, Any] = {"lora_target_modules": [name.strip() for name in target.split(",")]}
    return {
        "adapter": "lora",
        "lora_r": recipe.train.lora_rank,
        "lora_alpha": argument(recipe, "lora_alpha"),
        "lora_dropout": argument(recipe, "lora_dropout"),
        "lora_fan_in_fan_out": False,
        **({"lora_target_linear": True} if target == "all" else modules),
    }


def _refuse_reserved(args: dict[str, Any]) -> None:
    for name in args:
        if name in RESERVED_ARGS:
            raise RunnerError(f"train.args.{name}={args[name]!r} is not for a recipe to set", f"{RESERVED_ARGS[name]}.")
