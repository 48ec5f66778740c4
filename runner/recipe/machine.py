"""What this machine is, so that a rate measured on it is not taken for another's."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import which

_CPUS, _GPUS = Path("/proc/cpuinfo"), Path("/proc/driver/nvidia/gpus")
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}  # the kernel's names of the instructions, the last that of Arm


def machine_name() -> str:
    """The CPUs that this process may use and the GPUs: `2 x AMD EPYC 9R14, 1 x NVIDIA H100 80GB HBM3`."""
    cpus = _field(_CPUS, "model name") or platform.machine()
    parts = [f"{len(os.sched_getaffinity(0))} x {cpus}"]
    gpus = gpu_models()
    parts += [f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus)]
    return ", ".join(parts)


def cpu_dtype() -> str:
    """The type that an engine on this machine's CPUs computes fastest in: bfloat16 where they have instructions for it.

    Recipes write `${cpu_dtype:}`. On others float32: bfloat16 would be computed by way of it.
    """
    return "bfloat16" if _BFLOAT16 & cpu_features() else "float32"


def cpu_features() -> set[str]:
    """The kernel's names of this machine's instructions."""
    return set((_field(_CPUS, "flags") or _field(_CPUS, "Features")).split())


def gpu_models() -> list[str]:
    """The driver's names of this machine's GPUs."""
    return [_field(path, "Model") for path in sorted(_GPUS.glob("*/information"))]


def memory_bytes() -> int:
    """Memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def installed(module: str) -> bool:
    """Whether this process could import one of the modules (`a|b`). They are looked for and not imported."""
    try:
        return any(find_spec(each) is not None for each in module.split("|"))
    except ModuleNotFoundError:  # of a package above it
        return False


def pip_install(packages: str) -> str:
    """The command that installs packages into the environment of this interpreter, wherever it is pasted."""
    pip = which("pip")
    own = pip is not None and Path(pip).parent == Path(sys.executable).parent
    return f"{'pip' if own else f'{shlex.quote(sys.executable)} -m pip'} install {packages}"


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
