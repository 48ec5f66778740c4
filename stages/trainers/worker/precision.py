"""The type that a model is trained in on CPUs."""

from __future__ import annotations

from typing import Any

from runner.recipe.machine import cpu_dtype


def widen(model: Any) -> bool:
    """Hold a model of bfloat16 in float32 on CPUs without instructions for it; returns whether it was changed.

    torch then multiplies such matrices number by number: 1.2 GFLOP/s on an AVX2 core that makes 71 in float32. What is
    trained is in float32 already, so that optimizers keep their parameters.
    """
    import torch

    if model is None or cpu_dtype() == "bfloat16":
        return False
    narrow = [each for each in model.parameters() if each.device.type == "cpu" and each.dtype == torch.bfloat16]
    if narrow:
        model.float()
    return bool(narrow)
