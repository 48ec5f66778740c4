"""Rules about what the hardware can compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from runner.cluster.accelerators import WITHOUT_BFLOAT16
from runner.errors import Problem
from runner.pipeline.optional import Rule
from stages.sections.recipe import Recipe
from stages.trainers.rules.conflicts import Argument

ON_GPU_BACKENDS = (("nccl", "cncl", "hccl", "mccl", "xccl"), "Set train.args.ddp_backend=gloo, or remove it.")
"""Of `ddp_backend`: values, and what to do on CPUs."""


def hardware_can_train(argument: Argument, on_gpu: Mapping[str, tuple[Any, str]], bfloat16: tuple[str, ...]) -> Rule:
    """The rule that arguments go with the accelerator.

    on_gpu: argument -> the values that need a GPU (empty: any that is set) and what to do. bfloat16: arguments that
    compute in it.
    """
    return partial(_hardware_can_train, argument, on_gpu, bfloat16)


def _hardware_can_train(
    argument: Argument, on_gpu: Mapping[str, tuple[Any, str]], bfloat16: tuple[str, ...], recipe: Recipe
) -> Iterator[Problem]:
    if "train" not in recipe.pipeline:
        return
    if recipe.cluster.accelerator == "cpu":
        for name, (values, hint) in on_gpu.items():
            value = argument(recipe, name)
            if value in values if values else value:
                yield Problem(f"train.args.{name}", value, "needs a GPU, and cluster.accelerator is cpu", hint)
        return
    gpu = recipe.resources_of("train").accelerator_type
    for name in bfloat16:
        if gpu in WITHOUT_BFLOAT16 and argument(recipe, name):
            hint = "Set train.args.fp16=true and bf16=false, or take a newer GPU."
            yield Problem(f"train.args.{name}", True, f"is not possible on {gpu}, which computes no bfloat16", hint)
