"""Packages that some training arguments need besides LLaMA-Factory, and trackers that a run is reported to.

A recipe is judged by the environment that validates it, where the trainer is installed in it. Elsewhere (a light
installation) and for workers with packages of their own, the environment that trains is another one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runner.cluster.reach import is_this_machine
from runner.errors import Problem
from runner.recipe.machine import installed, pip_install
from stages.sections.recipe import Recipe
from stages.trainers.llamafactory.values import argument
from stages.trainers.rules.packages import OPTIMIZERS, Need, one_of, trackers_exist, trackers_needed

NEEDS = (
    Need("flash_attn", "flash_attn", "flash-attn --no-build-isolation", one_of("fa2")),
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
# Fields of a runtime environment that give workers other packages.
_OWN_PACKAGES = {"pip", "uv", "conda", "py_executable", "image_uri", "container"}
_QUANTIZERS = {"bnb": ("bitsandbytes", "bitsandbytes"), "hqq": ("hqq", "hqq"), "eetq": ("eetq", "eetq")}


def trains_here(recipe: Recipe) -> bool:
    """Whether the training's environment is the one of this process."""
    return not _has_own_packages(recipe) and is_this_machine(recipe.cluster.address) and installed("llamafactory")


def packages_are_installed(recipe: Recipe) -> Iterator[Problem]:
    if "train" in recipe.pipeline and trains_here(recipe):
        for need, value in needed(recipe):
            if not installed(need.module):
                message = f"needs {need.module.split('|')[0]}, which is not installed here"
                yield Problem(f"train.args.{need.argument}", value, message, pip_install(need.pip))


def remarks(recipe: Recipe) -> Iterator[str]:
    """What the nodes of another machine must have installed, for a plan: nobody has looked whether they do."""
    if not is_this_machine(recipe.cluster.address) and not _has_own_packages(recipe):
        for need, value in needed(recipe):
            yield (
                f"train.args.{need.argument}={value} needs {need.module.split('|')[0]} on the nodes of "
                f"{recipe.cluster.address}: pip install {need.pip}"
            )


def _has_own_packages(recipe: Recipe) -> bool:
    return bool(_OWN_PACKAGES & set(recipe.resources_of("train").runtime_env))


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


RULES = (trackers_exist(argument), packages_are_installed)
