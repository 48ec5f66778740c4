"""The environment of an engine on CPUs, so that every core computes."""

from __future__ import annotations

import os
from importlib.metadata import distributions
from pathlib import Path

from runner.cluster import environments
from stages.sections.cluster import Cluster

_OPENMP = ("intel-openmp", "libiomp5.so")


def cpu_engine_env(cluster: Cluster, num_cpus: float, environment: str | None = None) -> dict[str, str]:
    """Environment variables of a vLLM engine. environment: that it runs in; None for the runner's own.

    vLLM reserves a core by default and runs fastest with Intel's OpenMP runtime: on two cores, binding both and
    preloading it gave 357 output tokens/s against 235 (vLLM 0.27.1, SmolLM2-135M on a two-core AVX-512 machine).
    What it compiles ahead of time it cannot load again on CPUs ("no attribute 'finalize_loading'"), and compiles once
    more at each start; without, an engine of the base model alone was ready after 35 s the second time, not 81.
    """
    cores = sorted(os.sched_getaffinity(0))[: max(1, int(num_cpus))]
    env = {
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(str(core) for core in cores),
        "OMP_NUM_THREADS": str(len(cores)),  # Ray would set it to the actor's CPUs, of which a bundle's actor has none
        "VLLM_CPU_KVCACHE_SPACE": str(cluster.cpu_kv_cache_gib),
        "VLLM_USE_AOT_COMPILE": "0",
    }
    library = openmp_runtime(environment)
    if library:
        env["LD_PRELOAD"] = str(library)
    return env


def openmp_runtime(environment: str | None) -> Path | None:
    """Path of libiomp5.so from the package intel-openmp of the environment, None where it is not installed there."""
    package, name = _OPENMP
    places = environments.packages(environment)
    found = (file for each in distributions(name=package, path=places) for file in each.files or ())
    return next((Path(str(file.locate())).resolve() for file in found if file.name == name), None)
