"""Writes the table of axolotl's arguments from the installed one: `make known-keys`. Nothing imports it."""

from __future__ import annotations

from runner.recipe.arguments.generate import Section, Tables, dataclass_table, main, pydantic_table, version_of
from stages.trainers.axolotl.mappings import AXOLOTL


def axolotl_tables() -> Tables:
    """`arguments`: all that a recipe may name, by the names of axolotl's files."""
    from axolotl.utils.schemas.config import AxolotlInputConfig
    from transformers import TrainingArguments

    named = {name: field.alias or name for name, field in AxolotlInputConfig.model_fields.items()}
    arguments = {named[name]: entry for name, entry in pydantic_table(AxolotlInputConfig).items()}
    versions = {name: version_of(name) for name in ("axolotl", "transformers", "peft", "accelerate")}
    return {
        "versions": versions,
        "arguments": {**arguments, **_narrowed(dataclass_table(TrainingArguments, closed_enums=True)), **OWN},
    }


_NOT_PASSED_ON = ("galore_", "apollo_", "schedule_free_")


def _narrowed(trainer: Section) -> Section:
    """Texts of axolotl that transformers' trainer knows as one of several. Those of axolotl alone are not passed on,
    and no optimizers that need arguments of their own, or whose weights are those of a step until they are told."""
    optimizer, scheduler = dict(trainer["optim"]), trainer["lr_scheduler_type"]
    optimizer["choices"] = [name for name in optimizer["choices"] if not name.startswith(_NOT_PASSED_ON)]
    return {
        "optim": optimizer,
        "optimizer": {**optimizer, "default": "adamw_torch_fused"},
        "lr_scheduler_type": scheduler,
        "lr_scheduler": {**scheduler, "default": "cosine"},
    }


_ATTENTION = ["eager", "sdpa", "flash_attention_2", "flash_attention_3"]
# Arguments of this trainer that axolotl has no field for, those of which it takes less here, and names of
# LLaMA-Factory that it takes for axolotl's. bf16=auto would be float16 on CPUs.
OWN: Section = {
    "attn_implementation": {"type": "null", "default": None, "choices": ["auto", *_ATTENTION]},
    "bf16": {"type": "bool", "default": False},
    "cutoff_len": {"type": "int", "default": 2048},
    "disable_gradient_checkpointing": {"type": "bool", "default": False},
    "eval_dataset": {"type": "null|str", "default": None},
    "eval_strategy": {"default": "no", "choices": ["no", "steps", "epoch"]},
    "finetuning_type": {"default": "lora", "choices": ["lora", "full"]},
    "flash_attn": {"default": "auto", "choices": ["auto", "disabled", "fa2", "fa3", "sdpa"]},
    "gradient_checkpointing": {"type": "bool", "default": False},
    "mask_history": {"type": "bool", "default": False},
    "max_steps": {"type": "int", "default": -1},
    "per_device_eval_batch_size": {"type": "int", "default": 1},
    "per_device_train_batch_size": {"type": "int", "default": 1},
    "save_strategy": {"default": "steps", "choices": ["no", "steps", "epoch"]},
    "tf32": {"type": "bool", "default": False},
    "train_on_prompt": {"type": "bool", "default": False},
    "use_dora": {"type": "bool", "default": False},
    "use_rslora": {"type": "bool", "default": False},
    "val_size": {"type": "float", "default": 0.0},
}


if __name__ == "__main__":
    main(AXOLOTL, axolotl_tables)
