"""What accelerators can do, by Ray's names of them (ray.util.accelerators), and which one a stage computes on.

Peak rates are the maker's own for dense matrices of 16 bits with sums in 32. Where a data sheet names a rate with
sparsity alone, it is half of it. Memory is what the driver shows (`nvidia-smi`, MiB), which is less than the name says.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from runner.recipe.machine import cpu_features, gpu_models, memory_bytes
from runner.recipe.schema import Recipe
from runner.text import count_text

WITHOUT_BFLOAT16 = ("V100", "P100", "T4", "P4", "K80")  # before Ampere
_FREE = 0.92  # of a GPU's memory, less its context and what its driver keeps
_GIB = 1 << 30


@dataclass(frozen=True)
class Accelerator:
    """name: Ray's, or what a person calls it. memory: bytes. flops: a second, at most. bandwidth: bytes a second.

    whose: what has the memory, where that is not the accelerator itself.
    """

    name: str
    memory: int
    flops: float
    bandwidth: float
    whose: str = ""

    @property
    def place(self) -> str:
        """What has the memory."""
        return self.whose or self.name

    @property
    def usable(self) -> int:
        """Bytes that a process may have."""
        return int(self.memory * _FREE)


def _gpu(name: str, gib: float, teraflops: float, gigabytes: float) -> Accelerator:
    return Accelerator(name, int(gib * _GIB), teraflops * 1e12, gigabytes * 1e9)


GPUS = {
    each.name: each
    for each in (
        # NVIDIA T4 data sheet: mixed precision (FP16/FP32) 65 TFLOPS, "320+ GB/s". Has no bfloat16.
        _gpu("T4", 15, 65, 320),
        # NVIDIA L4 data sheet: BFLOAT16 Tensor Core 242 TFLOPS with sparsity, 300 GB/s. 23,034 MiB.
        _gpu("L4", 22.5, 121, 300),
        # NVIDIA A10G data sheet for AWS (d1.awsstatic.com, NVIDIA_AWS_A10G_DataSheet_FINAL_02_17_2022.pdf), as others
        # quote it: BFLOAT16 Tensor Core 70 | 140* TFLOPS, 600 GB/s. 23,028 MiB. The A10 has 125, and is another GPU.
        _gpu("A10G", 22.5, 70, 600),
        # NVIDIA A100 data sheet: BFLOAT16 Tensor Core 312 | 624* TFLOPS; 40 GB 1,555 GB/s; 80 GB SXM 2,039 GB/s.
        _gpu("A100-40G", 40, 312, 1555),
        # NVIDIA L40S data sheet: BFLOAT16 Tensor Core 362.05 | 733* TFLOPS, 864 GB/s. 46,068 MiB.
        _gpu("L40S", 45, 362, 864),
        _gpu("A100-80G", 80, 312, 2039),
        # NVIDIA H100 and H200 data sheets, SXM: BFLOAT16 Tensor Core 1,979* TFLOPS; 3.35 and 4.8 TB/s.
        _gpu("H100", 79.6, 989, 3350),
        _gpu("H200", 140, 989, 4800),
    )
}
"""By memory, least first. *: with sparsity."""
# Parts of the driver's names; the first that fits.
_MODELS = (
    ("H200", "H200"), ("H100", "H100"), ("A100-SXM4-40GB", "A100-40G"), ("A100-PCIE-40GB", "A100-40G"),
    ("A100", "A100-80G"), ("L40S", "L40S"), ("A10G", "A10G"), ("L4", "L4"), ("T4", "T4"),
)  # fmt: skip
# The small rule for CPUs: a core at 2.5 GHz, two multiply-adds of a vector at a time, its share of the memory's speed.
_CLOCK, _OPERATIONS, _LANES, _CORE_BANDWIDTH = 2.5e9, 4, {"avx512f": 16}, 10e9


def accelerator_of(recipe: Recipe, stage: str) -> Accelerator | None:
    """What a worker of the stage computes on; None where it is not known here."""
    wanted = recipe.resources_of(stage)
    if recipe.cluster.accelerator == "cpu":
        return _cpu(wanted.cpus_per_worker) if recipe.cluster.address is None else None
    if wanted.accelerator_type:
        return named_accelerator(recipe, stage)
    models = gpu_models() if recipe.cluster.address is None else []
    return next((GPUS[name] for part, name in _MODELS if models and part in models[0]), None)


def named_accelerator(recipe: Recipe, stage: str) -> Accelerator | None:
    """The type that the recipe names for the stage, which is the same wherever the recipe is looked at."""
    name = recipe.resources_of(stage).accelerator_type
    # of an A100 that does not say which, what is true of both
    found = GPUS.get("A100-40G" if name == "A100" else name or "")
    return replace(found, name=name) if found and name else None


def cpu_cores(cores: float, lanes: int) -> Accelerator:
    """So many cores of this machine whose vectors have so many numbers of 32 bits."""
    flops = cores * _CLOCK * _OPERATIONS * lanes
    return Accelerator(
        f"{count_text(cores, 'CPU core')}", memory_bytes(), flops, cores * _CORE_BANDWIDTH, "this machine"
    )


def _cpu(cores: float) -> Accelerator:
    cores = min(cores, len(os.sched_getaffinity(0))) or 1
    return cpu_cores(cores, next((lanes for feature, lanes in _LANES.items() if feature in cpu_features()), 8))


def larger_gpus(needed: float, than: Accelerator) -> Iterator[str]:
    """Names of GPUs of more memory on which so many bytes fit, the smallest first."""
    return (name for name, gpu in GPUS.items() if gpu.memory > than.memory and gpu.usable >= needed)
