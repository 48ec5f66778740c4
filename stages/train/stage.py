"""Fine-tuning by a trainer inside Ray Train."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from runner.cluster import environments
from runner.cluster.environments import Chosen
from runner.cluster.reach import is_this_machine
from runner.cluster.session import check_fits
from runner.errors import Problem, RunnerError
from runner.patches import ray_train
from runner.patches.ray_train_torch import torch_workers
from runner.pipeline.context import RunContext
from runner.pipeline.estimates.figure import Estimate, Known
from runner.pipeline.estimates.rates import Conditions
from runner.pipeline.fingerprint import value_at
from runner.pipeline.optional import Rule, Workers
from runner.pipeline.results import FinishedRun, Part
from runner.pipeline.runs import check_writable, unusable_root
from runner.pipeline.stage import StageResult
from runner.recipe.arguments.mapped import Mapped
from runner.recipe.schema import StageResources, WorkerRange
from runner.storage.artifact import scan_folder
from runner.text import count_text
from stages.models.chat_template import template_meaning, with_template_text
from stages.models.weights import found_weights
from stages.samples import without_torch
from stages.sections.model import is_local
from stages.sections.recipe import Recipe
from stages.train.start import Start, require_start, start_fits, start_of
from stages.trainers.base import (
    ADAPTER,
    DEFAULT,
    LOG,
    TRAINERS,
    Trainer,
    load_trainer,
    trainer_environment,
    trainer_mappings,
    trainer_named,
    trainer_rules,
)
from stages.trainers.checkpoints import check_final, repair
from stages.trainers.failure import explain

WEIGHTS = "trained_weights"
_ELSEWHERE = "(a folder of the worker)"
TOKENS = "tokens"  # folder of the tokenized training set, while the stage runs


class Train:
    """Trains the model on the train set: `trained_weights` (the adapter, or the model if all of it was trained) and
    `training_log`.

    The train set, the model and `storage.root` must be at the same paths on every node that trains.
    """

    name: ClassVar[str] = "train"
    version: ClassVar[int] = 6
    reads: ClassVar[tuple[str, ...]] = (
        "seed", "model.source", "model.template", "model.chat_template", "model.chat_template_kwargs",
        "model.trust_remote_code", "train.trainer", "train.stage", "train.reasoning", "train.too_long",
        "train.lora_rank", "train.lora_target", "train.learning_rate", "train.num_epochs", "train.max_samples",
        "train.start_from", "train.args", "resources.train.num_workers", "cluster.accelerator",
    )  # fmt: skip
    libraries: ClassVar[tuple[str, ...]] = ()
    provides: ClassVar[tuple[str, ...]] = (WEIGHTS, "training_log")
    ephemeral: ClassVar[bool] = False

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        return ("train_set", "model")

    def libraries_of(self, recipe: Recipe) -> Sequence[str]:
        return load_trainer(recipe).libraries

    def environment(self, recipe: Recipe) -> Chosen | None:
        return trainer_environment(recipe)

    def library_arguments(self, recipe: Recipe) -> tuple[str, dict[str, Any]]:
        """The trainer and its arguments, without folders of a worker."""
        from runner.recipe.load import flatten

        where = {"dataset_dir": _ELSEWHERE, "output_dir": _ELSEWHERE, "tokens": _ELSEWHERE}
        args = load_trainer(recipe).arguments(recipe, model=recipe.model.source, **where)
        named = {name.removeprefix("config."): value for name, value in flatten(args)}
        return recipe.train.trainer, {name: value for name, value in named.items() if value != _ELSEWHERE}

    def canonical(self, recipe: Recipe) -> dict[str, Any]:
        """What the trainer makes of its keys. A local model is known by its digest, another run by its adapter's."""
        meaning = template_meaning(recipe) | load_trainer(recipe).canonical(recipe)
        with suppress(RunnerError, OSError, ValueError, KeyError):  # the stage says it
            if start := start_of(recipe):
                meaning["train.start_from"] = start.weights.sha256
        if is_local(recipe.model.source):
            meaning["model.source"] = "a local folder"
        return meaning

    def destinations(self, recipe: Recipe) -> Mapping[str, Callable[[], object]]:
        """A folder of checkpoints besides the run's own."""
        path, here = recipe.train.storage_path, is_this_machine(recipe.cluster.address)
        return {"train.storage_path": partial(check_writable, path)} if here and path and "://" not in path else {}

    def rules(self) -> Sequence[Rule]:
        return (checkpoints_have_a_folder, *trainer_rules(), start_fits)

    def remarks(self, recipe: Recipe) -> Iterator[str]:
        return load_trainer(recipe).remarks(recipe)

    def mappings(self) -> Sequence[Mapped]:
        return trainer_mappings()

    def stop_s(self, recipe: Recipe) -> float:
        """A checkpoint is saved."""
        return recipe.train.checkpoints.on_stop_s

    def page(self, run: FinishedRun) -> Part:
        from stages.train.page import page

        return page(run)

    def estimate(self, known: Known[Recipe]) -> Iterator[Estimate]:
        return load_trainer(known.recipe).estimate(known)

    def conditions(self, values: Mapping[str, Any]) -> Conditions:
        name = value_at(values, "train.trainer") or DEFAULT
        found = trainer_named(name if name in TRAINERS else DEFAULT).speed_conditions(values)
        return found if name == DEFAULT else replace(found, speed=[name, *found.speed])

    def workers(self, recipe: Recipe) -> Workers:
        workers = recipe.resources_of(self.name).most_workers
        return Workers(workers, f"resources.{self.name}.num_workers", may_change=True)

    def warm_up(self, ctx: RunContext[Recipe], running_stage: str) -> str:
        """Import the trainer's libraries, where cores are idle: ingest has two tasks at a time."""
        busy = ctx.recipe.resources_of(running_stage)
        if ctx.recipe.cluster.address is not None or not ctx.ray.has_idle_cpus(busy, 2):
            return ""
        import_ahead(ctx)
        return "the import of its libraries"

    def run(self, ctx: RunContext[Recipe]) -> StageResult:
        """Train, or resume from the newest complete checkpoint of an attempt with this fingerprint.

        Raises RunnerError naming the cause when the cluster is too small or the training fails for good.
        """
        import_ahead(ctx)
        start = require_start(ctx)
        trainer, tokens = load_trainer(ctx.recipe), ctx.stage_dir.absolute() / TOKENS
        recipe, folders = with_template_text(ctx.recipe), (ctx.input("model").path, ctx.input("train_set").path, tokens)
        one = StageResources(cpus_per_worker=min(1.0, ctx.resources.cpus_per_worker), custom=ctx.resources.custom)
        if without_torch.possible(recipe, folders[0]):
            there = without_torch.in_own_process(one, trainer.environment, ctx.ray.import_ahead)
        else:
            there = one.model_copy(update={"runtime_env": environments.runtime_env(trainer.environment, {})})
        ctx.ray.start()
        threading.Thread(target=import_module, args=("ray.train",), name="import-ray-train", daemon=True).start()
        counts = ctx.ray.call(trainer.prepare(), there, recipe, *map(str, folders))
        chat_template = counts.pop("chat_template")
        for line in trainer.row_remarks(counts, recipe):
            ctx.say(f"  {self.name}: {line}")
        config = loop_config(ctx, tokens, chat_template, start)
        own_cluster = ctx.recipe.cluster.address is None
        check_fits(
            ctx.resources,
            ctx.resources.most_workers if own_cluster else ctx.resources.least_workers,
            f"resources.{ctx.stage}",
        )
        run = run_config(ctx.recipe, ctx.stage_dir, ctx.run_id, ctx.fingerprint)
        run["worker_runtime_env"] = import_ahead(ctx)
        for damaged in repair(run["storage_path"], run["name"]):
            ctx.say(f"  {self.name}: not used: {damaged}")
        result = fit(trainer, config, ctx.resources, run, partial(stop, ctx), own_cluster=own_cluster)
        ctx.ray.forget_imports(trainer.environment)
        assert result.metrics.get("final"), "training ended without its results"
        metrics = {name: value for name, value in result.metrics.items() if name != "final"} | {"learned": counts}
        shutil.rmtree(tokens)
        return keep(result.checkpoint, ctx.stage_dir, ctx.recipe.model.source, metrics, run["name"])


def loop_config(
    ctx: RunContext[Recipe], tokens: Path, chat_template: str | None, start: Start | None = None
) -> dict[str, Any]:
    """What each worker is given. The output folder is relative to the worker's own; its name titles the loss plot."""
    args = load_trainer(ctx.recipe).arguments(
        ctx.recipe,
        model=str((start and start.model) or ctx.input("model").path),
        dataset_dir=str(ctx.input("train_set").path),
        output_dir=ctx.recipe.name,
        tokens=str(tokens),
        start=str(start.adapter) if start and start.adapter else None,
    )
    return {
        "args": args,
        "most_workers": ctx.resources.most_workers,
        "nodes_may_go": ctx.recipe.cluster.address is not None,
        "save_every_s": ctx.recipe.train.checkpoints.every_s,
        "source": ctx.recipe.model.source,
        "chat_template": chat_template,
        "progress": ctx.progress(),
    }


def scaling_config(resources: StageResources, *, nodes_may_go: bool) -> dict[str, Any]:
    """The stage's resources as keyword arguments of `ray.train.ScalingConfig`.

    nodes_may_go: whether the number of workers may change with the cluster's nodes.
    """
    per_worker = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker, **resources.custom}
    config: dict[str, Any] = {
        "num_workers": resources.most_workers,
        "use_gpu": resources.gpus_per_worker > 0,
        "resources_per_worker": {name: amount for name, amount in per_worker.items() if amount},
        "placement_strategy": resources.placement_strategy,
    }
    if resources.accelerator_type:
        config["accelerator_type"] = resources.accelerator_type
    if isinstance(workers := resources.num_workers, WorkerRange) and nodes_may_go:
        config["num_workers"] = (workers.min, workers.max)
        config["elastic_resize_monitor_interval_s"] = workers.check_every_s
    return config


def import_ahead(ctx: RunContext[Recipe]) -> dict[str, Any]:
    """The runtime environment of workers whose libraries are imported from the first call on."""
    trainer = load_trainer(ctx.recipe)
    return ctx.ray.import_ahead(trainer.environment, trainer.imports, worker_settings(ctx.recipe))


def worker_settings(recipe: Recipe) -> dict[str, Any]:
    """The stage's `runtime_env`, with the trainer's variables, which it may override."""
    resources = recipe.resources_of("train")
    return environments.with_variables(resources.runtime_env, load_trainer(recipe).worker_env(resources))


def run_config(recipe: Recipe, stage_dir: Path, run_id: str, fingerprint: str) -> dict[str, Any]:
    """How Ray Train names, stores and repeats the training: keyword arguments of `ray.train.RunConfig` and its parts.

    Ray Train resumes from the newest checkpoint that it finds under the same storage path and name. The name stands
    for all that affects the result, and the path is the run's own, so only an attempt of this very run is continued.
    """
    return {
        "name": f"{recipe.name}-{fingerprint[:16]}",
        "storage_path": storage_path(recipe, stage_dir, run_id),
        "failure_config": {"max_failures": recipe.train.max_failures},
        "checkpoint_config": {"num_to_keep": recipe.train.checkpoints.keep},
        "worker_runtime_env": environments.runtime_env(load_trainer(recipe).environment, worker_settings(recipe)),
    }


def checkpoints_have_a_folder(recipe: Recipe) -> Iterator[Problem]:
    path = recipe.train.storage_path
    if not path or "://" in path or "train" not in recipe.pipeline or not is_this_machine(recipe.cluster.address):
        return
    if why := unusable_root(Path(path).expanduser().absolute()):
        yield Problem(
            "train.storage_path", path, f"cannot be used: {why}", "Name a folder of its own, or leave it out."
        )


def storage_path(recipe: Recipe, stage_dir: Path, run_id: str) -> str:
    """Where the run's checkpoints go: `train.storage_path`/<run id>, or a folder of the stage's own."""
    base = recipe.train.storage_path
    if base is None:
        return str(stage_dir.absolute() / "checkpoints")
    if "://" not in base:
        return str(Path(base).expanduser().absolute() / run_id)
    endpoint = recipe.storage.endpoint_url
    if not base.startswith("s3://") or not endpoint:
        return f"{base.rstrip('/')}/{run_id}"
    scheme, _, host = endpoint.rpartition("://")
    return f"{base.rstrip('/')}/{run_id}?endpoint_override={host.rstrip('/')}&scheme={scheme or 'https'}"


def fit(
    trainer: Trainer,
    config: dict[str, Any],
    resources: StageResources,
    run: dict[str, Any],
    on_interrupt: Callable[[threading.Event], None],
    *,
    own_cluster: bool,
) -> Any:
    """Run the trainer's worker under Ray Train and return its Result. Raises RunnerError naming the cause of a failure.

    on_interrupt: called when the run is interrupted, before the interruption continues, with what is set when the
    training has ended.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError

    run_options = {
        **run,
        "failure_config": FailureConfig(**run["failure_config"]),
        "checkpoint_config": CheckpointConfig(**run["checkpoint_config"]),
        "callbacks": [_stop_on_mistake()],
    }
    alone = resources.most_workers == 1 and not trainer.shards(config["args"])
    ray_trainer = _trainer_class(own_cluster=own_cluster)(
        trainer.worker(),
        backend_config=None if alone else torch_workers(),
        train_loop_config=config,
        scaling_config=ScalingConfig(**scaling_config(resources, nodes_may_go=not own_cluster)),
        run_config=RunConfig(**run_options),
    )
    try:
        return in_thread(ray_trainer.fit, on_interrupt)
    except TrainingFailedError as error:
        raise explain(error, trainer.memory_hint) from error


def _trainer_class(*, own_cluster: bool) -> Any:
    """Ray Train's trainer of any workers, so that no process but the workers imports torch.

    Ray Train starts an actor for datasets, which this training reads by itself; and on a cluster that the run has
    started itself two that serve nothing there: one tells an autoscaler what the training needs, one removes placement
    groups of a training whose controller has died, for which it asks the dashboard, and without one hangs in retries.
    Each is a process of 200 MB that wakes 150 times a second.
    """
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    left_out = {"DatasetsCallback", *(("PlacementGroupCleanerCallback",) if own_cluster else ())}
    return ray_train.without_actors(DataParallelTrainer, left_out, fixed_size=own_cluster)


def _stop_on_mistake() -> Any:
    """Keeps Ray Train from repeating what would fail again: an error raised here ends the training at once."""
    from ray.train import UserCallback

    class StopOnMistake(UserCallback):  # type: ignore[misc]
        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
            for error in worker_exceptions.values():
                cause = ray_train.inner_error(error) or error
                if isinstance(cause, RunnerError):
                    raise cause

    return StopOnMistake()


def stop(ctx: RunContext[Recipe], ended: threading.Event) -> None:
    """Have the workers save a checkpoint and wait until they have, if they have made a step."""
    event, wait_s = ctx.ray.latest(ctx.stage), ctx.recipe.train.checkpoints.on_stop_s
    if event and event["done"] and wait_s:
        ctx.say(f"  {ctx.stage}: saving a checkpoint (interrupt again not to wait for it)")
        ctx.ray.ask_to_stop()
        ended.wait(timeout=wait_s)


def in_thread(function: Callable[[], Any], on_interrupt: Callable[[threading.Event], None]) -> Any:
    """Call the function in a thread and wait: in the main thread `fit` would take Ctrl-C for itself and exit with 0.

    on_interrupt: as of `fit`. It gets no thread, since one whose `join` a signal has interrupted counts as ended in
    Python 3.11 (bpo-45274).
    """
    outcome: dict[str, Any] = {}
    ended = threading.Event()

    def call() -> None:
        try:
            outcome["result"] = function()
        except BaseException as error:
            outcome["error"] = error
        finally:
            ended.set()

    threading.Thread(target=call, name="ray-train", daemon=True).start()
    try:
        ended.wait()
    except BaseException:  # the run is interrupted
        with suppress(Exception):  # whatever goes wrong now, the interruption counts
            on_interrupt(ended)
        raise
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]


def keep(checkpoint: Any, stage_dir: Path, source: str, metrics: dict[str, Any], training: str) -> StageResult:
    """Copy the final Ray Train checkpoint, wherever it is stored, into the stage's folder as its two artifacts.

    source: of the base model. training: the name of its `ray.train.RunConfig`.
    Raises RunnerError when it is not what the workers sealed.
    """
    temporary = stage_dir / ".final"
    shutil.rmtree(temporary, ignore_errors=True)
    checkpoint.to_directory(str(temporary))
    check_final(temporary, training)
    artifacts = []
    for name, part in ((WEIGHTS, ADAPTER), ("training_log", LOG)):
        folder = stage_dir / name
        shutil.rmtree(folder, ignore_errors=True)
        (temporary / part).replace(folder)
        artifacts.append(scan_folder(name, folder))
    shutil.rmtree(temporary)
    weights, log = artifacts
    weights = weights.model_copy(update={"meta": found_weights(weights, source).meta()})
    return StageResult([weights, log], metrics, note(metrics))


def note(metrics: dict[str, Any]) -> str:
    """One line for the terminal: `128 steps, loss 2.955 -> 0.062, 1.4 rows/s`."""
    parts = [f"{count_text(metrics['num_steps'], 'step')}"]
    if metrics["loss_first"] is not None:
        parts.append(f"loss {metrics['loss_first']:.3f} -> {metrics['loss_last']:.3f}")
    if metrics["samples_per_s"]:
        parts.append(f"{metrics['samples_per_s']:.1f} rows/s")
    if metrics["resumed_at_step"]:
        parts.append(f"resumed at step {metrics['resumed_at_step']}")
    return ", ".join(parts)
