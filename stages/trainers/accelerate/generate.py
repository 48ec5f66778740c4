"""Writes the tables of TRL's arguments from the installed one: `make known-keys`. Nothing imports it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from runner.recipe.arguments.generate import Entry, Section, Tables, dataclass_table, main, version_of
from stages.trainers.accelerate.mappings import TRL


def trl_tables() -> Tables:
    """`arguments`: all that a recipe may name. `sft`, `dpo`, `kto`: those that only some methods have, or that they
    have otherwise. TRL's own model arguments count for every method."""
    from trl import DPOConfig, KTOConfig, ModelConfig, SFTConfig

    model = dataclass_table(ModelConfig, closed_enums=True)
    kinds = {"sft": SFTConfig, "dpo": DPOConfig, "kto": KTOConfig}
    methods = {name: dataclass_table(kind, closed_enums=True) for name, kind in kinds.items()}
    methods["dpo"]["loss_type"] |= {"default": "sigmoid", "choices": list(_DPO_LOSSES)}
    methods["dpo"]["f_divergence_type"] = {"default": _F_DIVERGENCES[0], "choices": list(_F_DIVERGENCES)}
    names = sorted({name for table in methods.values() for name in table})
    merged = {name: union([table[name] for table in methods.values() if name in table]) for name in names}
    return {
        "versions": {name: version_of(name) for name in ("trl", "transformers", "accelerate", "peft")},
        "arguments": {**model, **merged, **OWN},
        **{name: own(table, list(methods.values())) for name, table in methods.items()},
    }


# Arguments of this trainer that TRL has no field for, and names of LLaMA-Factory that it takes for TRL's.
OWN: Section = {
    "finetuning_type": {"default": "lora", "choices": ["lora", "full"]},
    "eval_dataset": {"type": "null|str", "default": None},
    "val_size": {"type": "float", "default": 0.0},
    "mask_history": {"type": "bool", "default": False},
    "train_on_prompt": {"type": "bool", "default": False},
    "cutoff_len": {"type": "int", "default": 2048},
    "disable_gradient_checkpointing": {"type": "bool", "default": False},
    "flash_attn": {"default": "auto", "choices": ["auto", "disabled", "fa2", "fa3", "sdpa"]},
}
# TRL states these in words only.
_DPO_LOSSES = (
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
)  # fmt: skip
_F_DIVERGENCES = ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence")


def union(entries: Sequence[Entry]) -> Entry:
    """What any of the entries takes, with the first one's default."""
    if all(entry == entries[0] for entry in entries):
        return entries[0]
    kinds = sorted({kind for entry in entries for kind in entry.get("type", "").split("|") if kind})
    choices = [choice for entry in entries for choice in entry.get("choices", [])]
    found: Entry = {"type": "|".join(kinds)} if kinds else {}
    if "default" in entries[0]:
        found["default"] = entries[0]["default"]
    if choices and "str" not in kinds:
        found["choices"] = sorted(set(choices), key=json.dumps)
    return found


def own(table: Section, all_tables: Sequence[Section]) -> Section:
    """The entries that not every table has in the same way."""
    return {name: entry for name, entry in table.items() if any(other.get(name) != entry for other in all_tables)}


if __name__ == "__main__":
    main(TRL, trl_tables)
