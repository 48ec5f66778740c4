"""Packages that some arguments need: the lock of the environment that trains has them, or the value is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from runner.cluster import environments
from runner.errors import Problem
from stages.sections.recipe import Recipe
from stages.trainers.axolotl.mappings import AXOLOTL
from stages.trainers.axolotl.values import argument
from stages.trainers.rules.packages import OPTIMIZERS, Need, one_of

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


def packages_are_locked(recipe: Recipe) -> Iterator[Problem]:
    if "train" not in recipe.pipeline:
        return
    kind = recipe.cluster.accelerator
    for need in NEEDS:
        value = argument(recipe, need.argument)
        if value is None or not need.holds(value) or (kind == "cpu" and value in ON_GPU[need.argument][0]):
            continue
        if environments.version(ENVIRONMENT, need.pip, kind) is None:
            message = f"needs {need.pip}, which the environment {ENVIRONMENT} does not have"
            hint = f"Remove it; requirements/environments/{ENVIRONMENT}-{kind}.lock lists what there is."
            yield Problem(f"train.args.{need.argument}", value, message, hint)


RULES = (packages_are_locked,)
