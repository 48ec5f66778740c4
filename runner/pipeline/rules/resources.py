"""Rules about what the stages ask of Ray, against what the cluster has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress

from runner.errors import Problem
from runner.pipeline.optional import Computes, Workers
from runner.pipeline.registry import concerned, loadable
from runner.pipeline.stage import Stage
from runner.recipe.schema import Recipe, StageResources
from runner.recipe.valid_parts import UnusableError

_CUSTOM = re.compile(r"[\w.:/-]{1,128}", re.ASCII)
_OWN = {
    "CPU": "Set cluster.num_cpus, and cpus_per_worker of a stage.",
    "GPU": "Set cluster.num_gpus, and gpus_per_worker of a stage.",
    "memory": "Remove it: Ray counts it by itself.",
    "object_store_memory": "Remove it: Ray counts it by itself.",
}
_LEAST = 0.0001


def _computing(stages: Iterable[Stage], recipe: Recipe) -> Iterator[tuple[str, StageResources, Workers | None]]:
    """Those of the stages that compute on the accelerator. Workers: None where the recipe's keys for them are wrong."""
    for stage in stages:
        if isinstance(stage, Computes):
            workers = None
            with suppress(UnusableError):
                workers = stage.workers(recipe)
            yield stage.name, recipe.resources_of(stage.name), workers


def accelerator_is_asked_for(recipe: Recipe) -> Iterator[Problem]:
    on_cpu = recipe.cluster.accelerator == "cpu"
    for stage, wanted, _ in _computing(loadable(recipe.pipeline), recipe):
        key = f"resources.{stage}.gpus_per_worker"
        if on_cpu and wanted.gpus_per_worker:
            message = "asks for GPUs, but cluster.accelerator is cpu"
            yield Problem(key, wanted.gpus_per_worker, message, "Set it to 0, or set cluster.accelerator=gpu.")
        if on_cpu and wanted.accelerator_type:
            message = "asks for a GPU type, but cluster.accelerator is cpu"
            yield Problem(f"resources.{stage}.accelerator_type", wanted.accelerator_type, message, "Set it to null.")
        if not on_cpu and not wanted.gpus_per_worker:
            message = f"gives {stage} no GPU, but cluster.accelerator is gpu"
            yield Problem(key, wanted.gpus_per_worker, message, "Set it to 1, or choose a cluster=... without GPUs.")


def worker_uses_its_gpus(recipe: Recipe) -> Iterator[Problem]:
    """A worker computes on one GPU, and several that belong together cannot share one."""
    for stage, wanted, workers in _computing(loadable(recipe.pipeline), recipe):
        gpus, key = wanted.gpus_per_worker, f"resources.{stage}.gpus_per_worker"
        if workers is None:
            continue
        if gpus > 1:
            message = "gives a worker more than the one GPU that it computes on"
            yield Problem(key, gpus, message, f"Set it to 1, and {workers.widened_by}={gpus:g} to use as many GPUs.")
        elif 0 < gpus < 1 and workers.ranks > 1:
            message = f"lets the {workers.ranks} ranks of an engine share a GPU, which they cannot"
            yield Problem(key, gpus, message, "Set it to 1.")


def workers_are_counted_where_they_are(recipe: Recipe) -> Iterator[Problem]:
    for stage, wanted, workers in _computing(concerned(recipe), recipe):
        if workers is not None and workers.counted_by and wanted.num_workers != 1:
            message = f"has no effect: the number of engines is {workers.counted_by}"
            hint = f"Remove it, and set {workers.counted_by}."
            yield Problem(f"resources.{stage}.num_workers", wanted.num_workers, message, hint)


def number_of_workers_may_change(recipe: Recipe) -> Iterator[Problem]:
    """A range of workers is for a stage that continues with others."""
    can = {stage for stage, _, workers in _computing(concerned(recipe), recipe) if workers and workers.may_change}
    for stage in (found.name for found in concerned(recipe)):
        given = recipe.resources_of(stage).num_workers
        if isinstance(given, int):
            continue
        key, value = f"resources.{stage}.num_workers", {"min": given.min, "max": given.max}
        if stage not in can:
            message = f"is a range, and {stage} has as many workers at its end as at first"
            yield Problem(key, value, message, "Set a number.")
        elif given.min > given.max:
            yield Problem(key, value, "has a min above its max", "Set min to max at most.")


def cluster_is_large_enough(recipe: Recipe) -> Iterator[Problem]:
    """Only for a cluster that the run starts, whose size the recipe gives."""
    cluster = recipe.cluster
    if cluster.address is not None:
        return
    for stage in recipe.pipeline:
        wanted, count, why = recipe.resources_of(stage), *num_workers(recipe, stage)
        sizes = (
            ("cpus_per_worker", "CPUs", wanted.cpus_per_worker, cluster.num_cpus, "cluster.num_cpus"),
            ("gpus_per_worker", "GPUs", wanted.gpus_per_worker, cluster.num_gpus, "cluster.num_gpus"),
        )
        for name, what, each, there, key in sizes:
            if there is not None and each * count > there:
                yield Problem(
                    f"resources.{stage}.{name}",
                    each,
                    f"makes {each * count:g} {what} ({why}{count} x {each:g}), but {key}={there}",
                    f"Lower it or the number of workers, or raise {key}.",
                )
        for name, each in wanted.custom.items():
            held = cluster.resources.get(name, 0)
            if each * count > held:
                message = f"makes {each * count:g} ({why}{count} x {each:g}), but cluster.resources has {held:g} of it"
                yield Problem(f"resources.{stage}.custom.{name}", each, message, f"Set cluster.resources.{name}.")


def custom_resources_can_be_counted(recipe: Recipe) -> Iterator[Problem]:
    """Ray refuses others when the cluster starts, or gives a worker other CPUs than the recipe says."""
    asked = {f"resources.{stage}.custom": wanted.custom for stage, wanted in recipe.resources.items()}
    asked["submit.resources"] = recipe.submit.resources
    for key, amounts in {**asked, "cluster.resources": recipe.cluster.resources}.items():
        for name, amount in amounts.items():
            dotted = f"{key}.{name}"
            if not _CUSTOM.fullmatch(name) or name in _OWN:
                message = "is not a name of a custom resource: letters, digits, '_-.:/', and none of "
                yield Problem(dotted, amount, message + ", ".join(_OWN), _OWN.get(name, "Choose another name."))
            elif key == "cluster.resources" and amount % 1:
                yield Problem(dotted, amount, "must be a whole number, as a cluster's resources are", "Round it.")
            elif 0 < amount < _LEAST:
                yield Problem(dotted, amount, f"must be 0, or {_LEAST} at least", "Ray counts no smaller part.")


def num_workers(recipe: Recipe, stage: str) -> tuple[int, str]:
    """Workers of the named stage that must run side by side, and how they come about."""
    for found in loadable([stage]):
        if isinstance(found, Computes):
            workers = found.workers(recipe)
            return workers.count, workers.why
    return 1, ""  # tasks, which wait for each other


RULES = (
    accelerator_is_asked_for,
    worker_uses_its_gpus,
    workers_are_counted_where_they_are,
    number_of_workers_may_change,
    cluster_is_large_enough,
    custom_resources_can_be_counted,
)
