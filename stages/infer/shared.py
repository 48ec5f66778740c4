"""Batch inference on the endpoint's engine, before it is an endpoint (`infer.engine`): one start for both.

The infer stage deploys the application without a route, so that nothing but this run reaches its replicas, which
answer no request by HTTP until they are given `user_config`. The serve stage then deploys it with both, and Ray Serve
keeps the replicas, which are of the same version.

Where a run's own cluster has capacity for both, the replicas start during the stage before, usually training
(`warm_up`): they load adapters when they are asked for them, so there need not be one yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

from runner.cluster.session import check_fits, fit_together
from runner.errors import RunnerError
from runner.patches import ray_serve
from runner.pipeline.context import RunContext
from runner.storage.artifact import Artifact
from runner.storage.store import open_store
from stages.data.prediction import BASE, TUNED
from stages.engines.base import load_engine, start_state
from stages.infer.requests import Engine, PredictionWork
from stages.models.chat_template import with_template_text
from stages.models.weights import Adapter, WholeModel, weights_of
from stages.publish.stage import adapters_key
from stages.sections.recipe import Recipe
from stages.serve.config import app_name, build_app, engine_arg, replica_version, server_name
from stages.serve.health import Progress, application_status, listen, wait_until_running
from stages.trainers.base import load_trainer

_PIECES_AT_ONCE = 8  # for each replica, so that the engine has the next requests when it ends some
_MOST_LOSSES = 2  # of a piece's replica

# Memory that training and a waiting engine take together: 8 GiB and twelve times the model's files. SmolLM2-135M (0.25
# GiB of bfloat16, computed in float32) took 3.7 GB to train.
_ROOM_GIB, _ROOM_OF_MODEL = 8, 12


def is_shared(recipe: Recipe) -> bool:
    """Whether the recipe has one engine for batch inference and the endpoint.

    An endpoint that is updated in place (`serve.redeploy`) keeps serving, and lends no engine.
    """
    if recipe.infer.engine == "own" or recipe.serve.redeploy or not {"infer", "serve"} <= set(recipe.pipeline):
        return False
    return recipe.infer.engine == "shared" or _agree(recipe)


def _agree(recipe: Recipe) -> bool:
    """Whether the endpoint's first replicas are the engines that batch inference asks for."""
    batch, endpoint, backend = recipe.resources_of("infer"), recipe.resources_of("serve"), load_engine(recipe)
    trains = {"train", "publish"} <= set(recipe.pipeline)
    return (
        (batch.gpus_per_worker, batch.accelerator_type) == (endpoint.gpus_per_worker, endpoint.accelerator_type)
        and recipe.infer.concurrency * backend.ranks(recipe.infer.engine_kwargs) == backend.num_bundles(recipe)
        and not list(backend.differing(recipe))
        and not (trains and load_trainer(recipe).trained(recipe).kind == "model")
    )


def shared_models(recipe: Recipe, model: Path, adapter: Artifact | None) -> Engine:
    """What `request` needs to know of the engine: variants, and for the adapter the name that the endpoint gives it.

    Raises RunnerError when what was trained is not an adapter but a whole model, which needs an engine of its own.
    """
    if adapter is None:
        return Engine(str(model), {BASE: str(model)})
    weights = weights_of(adapter)
    if isinstance(weights, WholeModel):
        raise RunnerError("infer.engine=shared needs a LoRA adapter, and a whole model was trained", "Set it to own.")
    base = {BASE: str(model)} if recipe.evaluate.compare_base else {}
    return Engine(str(model), {TUNED: weights.name_at(recipe.serve.model_id), **base})


def predict(
    ctx: RunContext[Recipe], path: Path, pieces: list[dict[str, Any]], engine: Engine
) -> Iterator[list[dict[str, Any]]]:
    """Predictions of pieces of the test set as `answer` makes them, in the order in which the engine finishes them.

    Raises RunnerError when the engine does not start, and Ray's error when it dies again and again.
    """
    recipe, adapter = ctx.recipe, ctx.inputs.get("adapter")
    backend, store = load_engine(recipe), Adapter.of(adapter).store if adapter else None
    deploy(ctx, backend.server_config(recipe, engine.source, store, backend.server_env(recipe)))
    yield from ask(recipe, path, pieces, engine, ctx.progress())


def ask(
    recipe: Recipe, path: Path, pieces: list[dict[str, Any]], engine: Engine, progress: Progress
) -> Iterator[list[dict[str, Any]]]:
    """As `predict`, of an engine that has been deployed. progress: gets the state of its start."""
    import ray
    from ray import serve

    status, hint = partial(application_status, app_name(recipe)), load_engine(recipe).server_hint
    timeout_s = recipe.serve.startup_timeout_s
    healthy = partial(wait_until_running, status, timeout_s, progress, hint, engine=start_state(recipe))
    healthy()
    server = ray_serve.by_reference(serve.get_deployment_handle(server_name(recipe), app_name(recipe)))
    waiting, losses = deque(pieces), dict.fromkeys((piece["index"] for piece in pieces), 0)
    most = _PIECES_AT_ONCE * max(1, int(recipe.serve.autoscaling.get("min_replicas") or 1))
    work = PredictionWork(path, with_template_text(recipe), engine)
    with _Answers(most) as answers:
        while waiting or answers.expected:
            while waiting and len(answers.expected) < most:
                piece = waiting.popleft()
                answers.expect(server.answer_piece.remote(piece, work), piece)
            future, piece = answers.next()
            try:
                yield future.result()
            except ray.exceptions.RayActorError:
                losses[piece["index"]] += 1
                if losses[piece["index"]] > _MOST_LOSSES:
                    raise
                waiting.appendleft(piece)
                healthy()


class _Answers:
    """Responses of Ray Serve as they come: its public call for a result waits for that one, here in a thread.

    What is still expected at the end of the block is cancelled.
    """

    def __init__(self, most: int) -> None:
        self.expected: dict[Future[Any], tuple[Any, dict[str, Any]]] = {}
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="answers")

    def __enter__(self) -> _Answers:
        return self

    def __exit__(self, *error: object) -> None:
        for response, _ in self.expected.values():
            response.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def expect(self, response: Any, piece: dict[str, Any]) -> None:
        self.expected[self._threads.submit(response.result)] = (response, piece)

    def next(self) -> tuple[Future[Any], dict[str, Any]]:
        """One that has come, and what was asked."""
        done, _ = wait(self.expected, return_when=FIRST_COMPLETED)
        future = done.pop()
        return future, self.expected.pop(future)[1]


def warm_up(ctx: RunContext[Recipe], running_stage: str) -> str:
    """Have the model's replicas start while another stage works. Returns what starts, "" when it does not fit.

    ctx: of the infer stage, of whose inputs the model suffices. running_stage: the other stage; it and those after it
    up to infer must fit too, or they would wait for the engine's CPUs without end. Only on the run's own cluster:
    on one that others use as well an engine would keep them from what it has no use for yet.
    """
    recipe = ctx.recipe
    if recipe.cluster.address is not None or "model" not in ctx.inputs:
        return ""
    model = ctx.input("model")
    if not _has_memory(recipe, model.size_bytes):
        return ""
    ctx.ray.start()
    backend, names = load_engine(recipe), recipe.pipeline
    engine = (recipe.resources_of("serve"), backend.num_bundles(recipe))
    until_then = [recipe.resources_of(name) for name in names[names.index(running_stage) : names.index("infer")]]
    if not all(fit_together((each, each.most_workers), engine) for each in until_then):
        return ""
    adapters = None
    if "publish" in recipe.pipeline:
        store = open_store(recipe.storage.artifacts, endpoint_url=recipe.storage.endpoint_url)
        adapters = f"{store.uri}/{adapters_key(recipe)}"
    deploy(ctx, backend.server_config(recipe, str(model.path), adapters, backend.server_env(recipe)))
    return "the engine"


def _has_memory(recipe: Recipe, model_bytes: int) -> bool:
    """Whether an engine on CPUs and a training fit. On GPUs it is their own memory that they fill."""
    import psutil

    if recipe.cluster.accelerator != "cpu":
        return True
    needed_gib = _ROOM_GIB + recipe.cluster.cpu_kv_cache_gib + _ROOM_OF_MODEL * model_bytes / 2**30
    return bool(psutil.virtual_memory().available >= needed_gib * 2**30)


def deploy(ctx: RunContext[Recipe], config: Mapping[str, Any]) -> None:
    """Hand the application to Ray Serve, without a route. Replicas of the same version that are there stay.

    config: of the engine's `server_config`. The application stays up for the serve stage, to the end of the run.
    """
    from ray import serve

    recipe = ctx.recipe
    name = app_name(recipe)
    check_fits(recipe.resources_of("serve"), load_engine(recipe).num_bundles(recipe), "resources.serve")
    listen(recipe.serve, name, ctx.defer, started=ctx.deferred_names())
    app = build_app({"llm_config": config, **engine_arg(recipe)})
    ray_serve.set_version(app, replica_version(config))
    target = serve.RunTarget(target=app, name=name, route_prefix=None)
    serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
