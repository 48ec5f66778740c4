"""Rules about what the stages ask of Ray, against what the cluster has."""

from __future__ import annotations

from collections.abc import Iterator

from runner.errors import Problem
from runner.recipe.arguments import RAY
from runner.recipe.schema import Recipe, StageResources

# Stages that compute on the accelerator, one process for each worker.
_COMPUTING = ("train", "infer", "serve")
_ENGINES = ("infer", "serve")


def _computing(recipe: Recipe) -> Iterator[tuple[str, StageResources]]:
    for stage in _COMPUTING:
        if stage in recipe.pipeline:
            yield stage, recipe.resources_of(stage)


def accelerator_is_asked_for(recipe: Recipe) -> Iterator[Problem]:
    on_cpu = recipe.cluster.accelerator == "cpu"
    for stage, wanted in _computing(recipe):
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
    """A training process computes on one GPU, and so does each rank of an engine."""
    for stage, wanted in _computing(recipe):
        gpus, key = wanted.gpus_per_worker, f"resources.{stage}.gpus_per_worker"
        if gpus > 1:
            more = f"resources.train.num_workers={gpus:g}"
            if stage in _ENGINES:
                more = f"{stage}.engine_kwargs.tensor_parallel_size={gpus:g}"
            message = "gives a worker more than the one GPU that it computes on"
            yield Problem(key, gpus, message, f"Set it to 1, and {more} to use as many GPUs.")
        elif 0 < gpus < 1 and stage in _ENGINES and _ranks(recipe, stage) > 1:
            message = f"lets the {_ranks(recipe, stage)} ranks of an engine share a GPU, which they cannot"
            yield Problem(key, gpus, message, "Set it to 1.")


def engines_are_counted_where_they_are(recipe: Recipe) -> Iterator[Problem]:
    where = {"infer": "infer.concurrency", "serve": "serve.autoscaling"}
    for stage, key in where.items():
        count = recipe.resources_of(stage).num_workers
        if count != 1:
            message = f"has no effect: the number of engines is {key}"
            yield Problem(f"resources.{stage}.num_workers", count, message, f"Remove it, and set {key}.")


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


def num_workers(recipe: Recipe, stage: str) -> tuple[int, str]:
    """Workers that must run side by side, and how they come about."""
    if stage == "train":
        return recipe.resources_of(stage).num_workers, ""
    if stage == "infer":
        return recipe.infer.concurrency * _ranks(recipe, stage), "infer.concurrency x parallel ranks = "
    if stage == "serve":
        return _least_replicas(recipe) * _ranks(recipe, stage), "replicas x parallel ranks = "
    return 1, ""  # tasks, which wait for each other


def _ranks(recipe: Recipe, stage: str) -> int:
    """Processes of one engine: tensor parallel x pipeline parallel."""
    kwargs = recipe.infer.engine_kwargs if stage == "infer" else recipe.serve.engine_kwargs
    ranks = 1
    for name in ("tensor_parallel_size", "pipeline_parallel_size"):
        size = kwargs.get(name)
        ranks *= size if isinstance(size, int) and size > 0 else 1
    return ranks


def _least_replicas(recipe: Recipe) -> int:
    default = RAY.table("autoscaling")["min_replicas"]["default"]
    scaling = recipe.serve.autoscaling
    counts = [scaling.get("min_replicas", default), scaling.get("initial_replicas")]
    return max((count for count in counts if isinstance(count, int)), default=default)


RULES = (
    accelerator_is_asked_for,
    worker_uses_its_gpus,
    engines_are_counted_where_they_are,
    cluster_is_large_enough,
)
