"""FSDP and DeepSpeed between workers without GPUs, for which Accelerate trains copies of the model and says nothing."""

from __future__ import annotations

import os
from collections import defaultdict


def deepspeed_on_cpus() -> None:
    """Have the arguments of transformers that are made next find the workers as DeepSpeed's.

    DeepSpeed would compile an operator of its own, of which Gloo does the same work.
    """
    os.environ |= {"DS_ACCELERATOR": "cpu", "ACCELERATE_USE_DEEPSPEED": "true"}
    import deepspeed.ops
    from accelerate import PartialState

    deepspeed.ops.__compatible_ops__ = defaultdict(bool)
    PartialState(backend="gloo")


def fsdp_on_cpus() -> None:
    """Have the trainer that is made next take FSDP, which Accelerate knows of workers with GPUs alone."""
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
