"""Time of a training batch: the matrices at a share of the accelerator's peak, and the start of their kernels.

Both constants are fitted to benchmarks/RESULTS.md (`python -m benchmarks.estimates`): a small model's batch takes the
same time whatever its size, since launching the kernels of a layer takes longer than their work.
"""

from __future__ import annotations

from dataclasses import dataclass

from runner.cluster.accelerators import Accelerator
from stages.models.speed.flops import forward_flops
from stages.sections.model import Architecture

SHARE = 0.4
LAYER_S = 0.010  # a layer's forward and backward pass, and their parts of the optimizer's step
_FORWARD = 1.0


@dataclass(frozen=True)
class Method:
    """full: all parameters are trained, else LoRA's. checkpointed: the forward pass is computed twice."""

    full: bool = False
    checkpointed: bool = True

    @property
    def passes(self) -> float:
        """Forward passes that a step is worth: gradients of inputs take one, gradients of weights another."""
        return _FORWARD * (2 + self.full + self.checkpointed)


def batch_seconds(model: Architecture, on: Accelerator, rows: int, row_tokens: float, method: Method) -> float:
    """Seconds of a worker for one batch. row_tokens: of a row, as long as the batch pads it to."""
    work = method.passes * forward_flops(model, rows * row_tokens, row_tokens / 2)
    return model.num_hidden_layers * LAYER_S + work / (on.flops * SHARE)
