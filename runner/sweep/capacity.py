"""How many jobs of a sweep fit side by side, and which part of the machine each gets.

Without `cluster.address` every job starts a Ray of its own, so the machine's cores and GPUs are divided among them.
On a cluster Ray places them, and the largest stage says how many fit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from runner.cluster.session import num_places, worker_bundle
from runner.errors import Problem, RecipeError
from runner.pipeline.optional import Excludes
from runner.pipeline.registry import loadable
from runner.pipeline.rules.resources import num_workers
from runner.recipe.schema import Cluster, Recipe

_KEY = "max_parallel_jobs"
_Thing = TypeVar("_Thing")


@dataclass(frozen=True)
class Machine:
    """cores: numbers of those that this process may use. gpus: what CUDA_VISIBLE_DEVICES calls them."""

    cores: tuple[int, ...]
    gpus: tuple[str, ...] = ()

    @classmethod
    def here(cls) -> Machine:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is None:
            gpus = sorted(path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))
        else:
            gpus = [name for name in visible.split(",") if name]
        return cls(tuple(sorted(os.sched_getaffinity(0))), tuple(gpus))


@dataclass(frozen=True)
class Share:
    """What a job may use; None: whatever there is."""

    cores: tuple[int, ...] | None = None
    gpus: tuple[str, ...] | None = None


def shares(
    recipes: Sequence[Recipe],
    stages: Sequence[str],
    wanted: int | None,
    machine: Machine,
    nodes: list[dict[str, float]],
) -> tuple[list[Share], str]:
    """A share for each job that runs at a time, and why there is only one, or "".

    wanted: `max_parallel_jobs`; None: as many as fit. stages: those that the jobs run. nodes: resources of each node of
    the cluster, empty without `cluster.address`.
    Raises RecipeError when several are wanted and a stage excludes that they run at the same time.
    """
    conflict, hint = _conflict(recipes, stages)
    if conflict and wanted is not None and wanted > 1:
        raise RecipeError([Problem(_KEY, wanted, conflict, hint)])
    if conflict:
        return [Share()], conflict
    fitting = min(_fitting(recipe, stages, machine, nodes) for recipe in recipes)
    count = max(1, min(len(recipes), fitting if wanted is None else wanted))
    if count == 1:
        return [Share()], "" if wanted == 1 else "the machine has capacity for one job at a time"
    if nodes:
        return [Share()] * count, ""
    cpus, gpus = (
        max(int(each[place]) for each in (_local_need(recipe, stages) for recipe in recipes)) for place in (0, 1)
    )
    return [
        Share(_part(machine.cores, index, count, cpus), _part(machine.gpus, index, count, gpus) if gpus else None)
        for index in range(count)
    ], ""


def cluster_nodes(cluster: Cluster) -> list[dict[str, float]]:
    """Resources of each node of the cluster at `cluster.address`; empty without one. Raises RunnerError."""
    if cluster.address is None:
        return []
    from runner.cluster.session import RaySession

    session = RaySession(cluster)
    session.start()
    try:
        import ray

        return [node["Resources"] for node in ray.nodes() if node["Alive"]]
    finally:
        session.close()


def _conflict(recipes: Sequence[Recipe], stages: Sequence[str]) -> tuple[str, str]:
    """Why a stage excludes that the jobs run at the same time, and what to do; ("", "") when none does."""
    found = (stage.conflict(recipes) for stage in loadable(stages) if isinstance(stage, Excludes))
    return next((each for each in found if each[0]), ("", ""))


def _fitting(recipe: Recipe, stages: Sequence[str], machine: Machine, nodes: list[dict[str, float]]) -> int:
    """How many such jobs fit: on the nodes by placing the workers of each stage, else by the machine's size."""
    if nodes:
        counts = []
        for stage in stages:
            wanted, count = recipe.resources_of(stage), num_workers(recipe, stage)[0]
            counts.append(num_places(nodes, worker_bundle(wanted), wanted.placement_strategy) // count)
        return min(counts)
    cpus, gpus = _local_need(recipe, stages)
    return min(int(len(machine.cores) / cpus) if cpus else 1, int(len(machine.gpus) / gpus) if gpus else 1 << 30)


def _local_need(recipe: Recipe, stages: Sequence[str]) -> tuple[float, float]:
    """CPUs and GPUs of the cluster that the job starts; those of its largest stage where the recipe does not say."""
    needs = [(recipe.resources_of(stage), num_workers(recipe, stage)[0]) for stage in stages]
    cpus = recipe.cluster.num_cpus or max((wanted.cpus_per_worker * count for wanted, count in needs), default=1.0)
    gpus = recipe.cluster.num_gpus
    if gpus is None:
        return cpus, max((wanted.gpus_per_worker * count for wanted, count in needs), default=0.0)
    return cpus, gpus


def _part(things: tuple[_Thing, ...], index: int, count: int, least: int) -> tuple[_Thing, ...]:
    """The index-th of so many parts; they overlap where there is not enough for `least` in each."""
    size = min(len(things), max(least, len(things) // count, 1))
    return tuple(sorted((things[(index * size + place) % len(things)] for place in range(size)), key=things.index))
