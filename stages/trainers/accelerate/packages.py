"""Packages that some arguments need: the lock of the environment that trains has them, or the value is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stages.sections.recipe import Recipe
from stages.trainers.accelerate.values import argument
from stages.trainers.rules.hardware import ON_GPU_BACKENDS
from stages.trainers.rules.packages import (
    OPTIMIZERS,
    Need,
    one_of,
    packages_are_locked,
    trackers_exist,
    trackers_needed,
)

ENVIRONMENT = "accelerate"
NEEDS = (
    Need("attn_implementation", "flash_attn", "flash-attn", one_of("flash_attention_2")),
    Need("attn_implementation", "flash_attn_3", "flash-attn-3", one_of("flash_attention_3")),
    Need("deepspeed", "deepspeed", "deepspeed"),
    Need("use_liger_kernel", "liger_kernel", "liger-kernel"),
    Need("load_in_4bit", "bitsandbytes", "bitsandbytes"),
    Need("load_in_8bit", "bitsandbytes", "bitsandbytes"),
    *OPTIMIZERS,
)
# Arguments whose values above need a GPU, with the values where not every one does, and what to do on CPUs.
ON_GPU: dict[str, tuple[tuple[str, ...], str]] = {
    **{name: ((), f"Set train.args.{name}=false; bf16 works on CPUs.") for name in ("fp16", "fp16_full_eval")},
    **{name: ((), f"Set train.args.{name}=false.") for name in ("tf32", "use_liger_kernel")},
    **dict.fromkeys(("load_in_4bit", "load_in_8bit"), ((), "Remove it.")),
    "attn_implementation": (("flash_attention_2", "flash_attention_3"), "Set train.args.attn_implementation=sdpa."),
    "ddp_backend": ON_GPU_BACKENDS,
}


def _needed(recipe: Recipe) -> Iterator[tuple[Need, Any]]:
    """The packages that the arguments need. What needs a GPU is refused elsewhere where there is none."""
    on_cpu = recipe.cluster.accelerator == "cpu"
    for need in NEEDS:
        value = argument(recipe, need.argument)
        if value is not None and need.holds(value) and not (on_cpu and need.argument in ON_GPU):
            yield need, value
    yield from trackers_needed(argument, recipe)


RULES = (trackers_exist(argument), packages_are_locked(ENVIRONMENT, _needed))
