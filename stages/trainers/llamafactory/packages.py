"""Packages that some arguments need: the lock of the environment that trains has them, or the value is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stages.sections.recipe import Recipe
from stages.trainers.llamafactory.values import argument
from stages.trainers.rules.packages import (
    OPTIMIZERS,
    Need,
    one_of,
    packages_are_locked,
    trackers_exist,
    trackers_needed,
)

ENVIRONMENT = "llamafactory"
NEEDS = (
    Need("flash_attn", "flash_attn", "flash-attn", one_of("fa2")),
    Need("deepspeed", "deepspeed", "deepspeed"),
    Need("enable_liger_kernel", "liger_kernel", "liger-kernel"),
    Need("use_liger_kernel", "liger_kernel", "liger-kernel"),
    Need("use_unsloth", "unsloth", "unsloth"),
    Need("use_galore", "galore_torch", "galore-torch"),
    Need("use_apollo", "apollo_torch", "apollo-torch"),
    Need("use_badam", "badam", "badam"),
    Need("use_adam_mini", "adam_mini", "adam-mini"),
    Need("use_swanlab", "swanlab", "swanlab"),
    Need("mixture_of_depths", "MoD", "mixture-of-depth"),
    Need("predict_with_generate", "jieba", "jieba"),
    Need("predict_with_generate", "nltk", "nltk"),
    Need("predict_with_generate", "rouge_chinese", "rouge-chinese"),
    *OPTIMIZERS,
)
_GPU_ARGUMENTS = ("flash_attn", "enable_liger_kernel", "use_liger_kernel", "use_unsloth", "quantization_bit")
_QUANTIZERS = {"bnb": ("bitsandbytes", "bitsandbytes"), "hqq": ("hqq", "hqq"), "eetq": ("eetq", "eetq")}


def needed(recipe: Recipe) -> Iterator[tuple[Need, Any]]:
    """The packages that the recipe's arguments need, with the arguments' values. What needs a GPU is refused elsewhere
    where there is none."""
    on_cpu = recipe.cluster.accelerator == "cpu"
    for need, value in _all_needed(recipe):
        if not (on_cpu and need.argument in _GPU_ARGUMENTS):
            yield need, value


def _all_needed(recipe: Recipe) -> Iterator[tuple[Need, Any]]:
    for need in NEEDS:
        value = argument(recipe, need.argument)
        if value is not None and need.holds(value):
            yield need, value
    bits = argument(recipe, "quantization_bit")
    if bits is not None and (method := argument(recipe, "quantization_method")) in _QUANTIZERS:
        yield Need("quantization_bit", *_QUANTIZERS[method]), bits
    yield from trackers_needed(argument, recipe)


RULES = (trackers_exist(argument), packages_are_locked(ENVIRONMENT, needed))
