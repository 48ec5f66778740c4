"""Packages that some arguments need: the lock of the environment that trains has them, or the value is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from stages.sections.recipe import Recipe
from stages.trainers.axolotl.mappings import AXOLOTL
from stages.trainers.axolotl.values import argument
from stages.trainers.rules.packages import OPTIMIZERS, Need, one_of, packages_are_locked

ENVIRONMENT = "axolotl"
NEEDS = (
    Need("attn_implementation", "flash_attn", "flash-attn", one_of("flash_attention_2")),
    Need("attn_implementation", "flash_attn_3", "flash-attn-3", one_of("flash_attention_3")),
    *(replace(need, argument="optimizer") for need in OPTIMIZERS),
)
_KERNELS = ("bitsandbytes", "torchao")  # of which only those for GPUs train
_OPTIMIZERS_ON_GPU = tuple(
    name
    for name in AXOLOTL.content["arguments"]["optimizer"]["choices"]
    if any(need.holds(name) for need in OPTIMIZERS if need.module in _KERNELS)
)
# Arguments whose values above need a GPU, with the values where not every one does, and what to do on CPUs.
ON_GPU: dict[str, tuple[tuple[str, ...], str]] = {
    "fp16": ((), "Set train.args.fp16=false; bf16 works on CPUs."),
    "tf32": ((), "Set train.args.tf32=false."),
    "attn_implementation": (("flash_attention_2", "flash_attention_3"), "Set train.args.attn_implementation=sdpa."),
    "optimizer": (_OPTIMIZERS_ON_GPU, "Set train.args.optimizer=adamw_torch."),
}


def _needed(recipe: Recipe) -> Iterator[tuple[Need, Any]]:
    """The packages that the arguments need. What needs a GPU is refused elsewhere where there is none."""
    on_cpu = recipe.cluster.accelerator == "cpu"
    for need in NEEDS:
        value = argument(recipe, need.argument)
        if value is not None and need.holds(value) and not (on_cpu and value in ON_GPU[need.argument][0]):
            yield need, value


RULES = (packages_are_locked(ENVIRONMENT, _needed),)
