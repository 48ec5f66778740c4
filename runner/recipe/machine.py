"""What this machine is, so that a rate measured on it is not taken for another's."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_CPUS, _GPUS = Path("/proc/cpuinfo"), Path("/proc/driver/nvidia/gpus")
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}  # the kernel's names of the instructions, the last that of Arm


def machine_name() -> str:
    """The CPUs that this process may use and the GPUs: `2 x AMD EPYC 9R14, 1 x NVIDIA H100 80GB HBM3`."""
    cpus = _field(_CPUS, "model name") or platform.machine()
    parts = [f"{len(os.sched_getaffinity(0))} x {cpus}"]
    gpus = [_field(path, "Model") for path in sorted(_GPUS.glob("*/information"))]
    parts += [f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus)]
    return ", ".join(parts)


def cpu_dtype() -> str:
    """The type that an engine on this machine's CPUs computes fastest in: bfloat16 where they have instructions for it.

    Recipes write `${cpu_dtype:}`. On others float32: bfloat16 would be computed by way of it.
    """
    flags = _field(_CPUS, "flags") or _field(_CPUS, "Features")
    return "bfloat16" if _BFLOAT16 & set(flags.split()) else "float32"


def _field(path: Path, name: str) -> str:
    """The first value of that name in a file of `name: value` lines; empty when there is none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def is_loopback(host: str | None) -> bool:
    """Whether only this machine reaches what listens at that address, or answers from it."""
    return host in ("127.0.0.1", "::1", "localhost")
