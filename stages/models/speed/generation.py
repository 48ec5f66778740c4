"""Time of answering many requests at once: steps that read the weights and the cache, and what the matrices take.

The constants are fitted to benchmarks/RESULTS.md (`python -m benchmarks.estimates`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from runner.cluster.accelerators import Accelerator
from stages.models.architecture import DTYPE_BYTES, kv_bytes_per_token
from stages.models.speed.flops import forward_flops, matrix_params
from stages.sections.model import Architecture

SHARE = 0.6
LAYER_S = 0.00012  # a layer of a step, with adapters
START_S = {"gpu": 90.0, "cpu": 20.0}  # until an engine is ready: weights, compilation, graphs
SEQUENCE_S = 0.00002  # a sequence of a step: sampling, text, and the queue


@dataclass(frozen=True)
class Requests:
    """count: of them. prompt, answer: tokens, on average. shared: tokens that all prompts begin with."""

    count: int
    prompt: float
    answer: float
    shared: float = 0.0


def seconds(model: Architecture, on: Accelerator, asked: Requests, at_once: int, ranks: int = 1) -> float:
    """Seconds of one engine for all of them.

    at_once: sequences in a step, at most. ranks: accelerators of the engine.
    """
    batch = min(at_once, asked.count)
    steps = math.ceil(asked.count / batch) * asked.answer
    context = asked.prompt + asked.answer / 2
    read = matrix_params(model) * DTYPE_BYTES[model.dtype] + batch * context * kv_bytes_per_token(model, 2)
    step = read / (on.bandwidth * ranks) + model.num_hidden_layers * LAYER_S + batch * SEQUENCE_S
    computed = asked.count * (asked.prompt - asked.shared + asked.answer)
    return steps * step + forward_flops(model, computed, context) / (on.flops * ranks * SHARE)
