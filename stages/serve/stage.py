"""Serve base model and adapter behind an OpenAI-compatible endpoint of `ray.serve.llm`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from runner.cluster.environments import Chosen
from runner.cluster.session import check_fits
from runner.patches import ray_serve
from runner.pipeline.context import RunContext
from runner.pipeline.estimates.figure import Computed, Estimate, Known
from runner.pipeline.estimates.figure import time as time_of
from runner.pipeline.estimates.rates import Conditions, measured, plain_time
from runner.pipeline.optional import Rule, Workers
from runner.pipeline.results import FinishedRun, Outcome, Part
from runner.pipeline.stage import StageResult
from runner.recipe.arguments.mapped import Mapped
from runner.storage.artifact import Artifact
from runner.storage.digest import digest_json
from stages.engines.base import engine_environment, engine_rules, load_engine, server_mappings, start_state
from stages.infer.sampling import request_sampling
from stages.infer.shared import is_shared
from stages.ingest.canonical import without
from stages.models.known import ENGINE, conditions
from stages.models.speed.generation import START_S
from stages.models.weights import Adapter
from stages.sections.recipe import Recipe
from stages.serve import rules
from stages.serve.config import api_settings, app_name, build_app, engine_arg, replica_version
from stages.serve.endpoint import Endpoint
from stages.serve.fit import fit_to_serve
from stages.serve.guard.keys import own_key
from stages.serve.health import Listener, application_status, listen, wait_until_running, warm
from stages.serve.mappings import MAPPINGS
from stages.serve.other_runs import ServedRun, served_runs
from stages.serve.replicas import least_replicas
from stages.serve.usage import row_to_ask


class Serve:
    """Deploys the endpoint, waits until it answers for base and adapter, and takes it down when the run ends."""

    name: ClassVar[str] = "serve"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = (
        "serve.model_id",
        "serve.engine_kwargs",
        "serve.autoscaling",
        "serve.deployment",
        "serve.max_adapters_per_replica",
        "infer.backend",
        "infer.engine_kwargs",
        "train.lora_rank",
        "model.trust_remote_code",
        "cluster.accelerator",
        "serve.runs",
        "resources.serve",
    )
    libraries: ClassVar[tuple[str, ...]] = ("ray",)
    provides: ClassVar[tuple[str, ...]] = ("endpoint",)
    ephemeral: ClassVar[bool] = True
    only_checks: ClassVar[tuple[str, ...]] = ("scores",)

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        """The model, the published adapter, and the scores that say which adapter was evaluated."""
        adapter = ("adapter",) if "publish" in recipe.pipeline else ()
        scores = ("scores",) if "evaluate" in recipe.pipeline else ()
        return ("model", *adapter, *scores)

    def libraries_of(self, recipe: Recipe) -> Sequence[str]:
        return load_engine(recipe).libraries

    def environment(self, recipe: Recipe) -> Chosen | None:
        return engine_environment(recipe)

    def canonical(self, recipe: Recipe) -> dict[str, Any]:
        """The engine's arguments as the endpoint will have them, whichever key they come from."""
        engine = load_engine(recipe)
        kwargs = engine.server_kwargs(recipe, with_adapters="publish" in recipe.pipeline)
        kwargs = without(kwargs, engine.without_effect)
        return {"serve.engine_kwargs": kwargs, "infer.engine_kwargs": None, "train.lora_rank": None}

    def destinations(self, recipe: Recipe) -> Mapping[str, Callable[[], object]]:
        """The port, where the run starts Ray itself: a cluster may listen at it already, and for this endpoint."""
        from stages.serve.health import free_port

        mine = recipe.cluster.address is None and recipe.serve.port
        return {"serve.port": partial(free_port, recipe.serve.host, recipe.serve.port)} if mine else {}

    def rules(self) -> Sequence[Rule]:
        return (*rules.RULES, *engine_rules())

    def mappings(self) -> Sequence[Mapped]:
        return (*server_mappings(), *MAPPINGS)

    def keep_alive(self, recipe: Recipe) -> str:
        return "serve.keep_alive" if recipe.serve.keep_alive else ""

    def usage(self, recipe: Recipe, artifacts: Mapping[str, Artifact]) -> str:
        return Endpoint.of(artifacts["endpoint"]).usage(row_to_ask(recipe, artifacts.get("test_set")))

    def conflict(self, recipes: Sequence[Recipe]) -> tuple[str, str]:
        """One endpoint at a time: on a cluster, and at a port."""
        hint = "Set serve.port=0, or end the jobs with stop_after=evaluate."
        if any(recipe.cluster.address is not None for recipe in recipes):
            return "the jobs serve, and a cluster has one endpoint at a time", hint
        fixed = next((recipe.serve.port for recipe in recipes if recipe.serve.port), 0)
        return (f"every job would serve at serve.port={fixed}", hint) if fixed else ("", "")

    def outcome(self, run: FinishedRun) -> Outcome:
        from stages.serve.page import outcome

        return outcome(run)

    def page(self, run: FinishedRun) -> Part:
        from stages.serve.page import page

        return page(run)

    def estimate(self, known: Known[Recipe]) -> Iterator[Estimate]:
        yield from load_engine(known.recipe).server_estimate(known)
        if measured(known, self.name) is None and not is_shared(known.recipe):
            yield time_of(Computed(START_S[known.recipe.cluster.accelerator], "computed: until an engine is ready"))
        else:
            yield plain_time(known, self.name)

    def conditions(self, values: Mapping[str, Any]) -> Conditions:
        return conditions(values, (*ENGINE, "serve.engine_kwargs", "serve.autoscaling"))

    def workers(self, recipe: Recipe) -> Workers:
        engine = load_engine(recipe)
        ranks = engine.ranks(recipe.serve.engine_kwargs)
        return Workers(
            least_replicas(recipe) * ranks,
            f"serve.engine_kwargs.{engine.ranks_argument}",
            "replicas x parallel ranks = ",
            ranks,
            "serve.autoscaling",
        )

    def run(self, ctx: RunContext[Recipe]) -> StageResult:
        """Raises RunnerError when the adapter is not the evaluated one, the port is taken, or it will not start."""
        started = time.monotonic()
        key = own_key(ctx.recipe.serve.api_keys)
        adapter = own_adapter(ctx)
        others = served_runs(ctx, adapter)
        recipe, engine = with_capacity(ctx.recipe, others), load_engine(ctx.recipe)
        ctx.progress().update(0, None, "s", state="starting Ray Serve")
        check_fits(recipe.resources_of("serve"), engine.num_bundles(recipe), "resources.serve")
        name = app_name(recipe)
        listener = listen(recipe.serve, name, ctx.defer, started=ctx.deferred_names())
        store, env = adapter.store if adapter else None, engine.server_env(recipe)
        config = engine.server_config(recipe, str(ctx.input("model").path), store, env)
        only = served_adapters(adapter, others) if others else None
        deploy({"llm_config": config, **engine_arg(recipe)}, api_settings(recipe, only), listener)
        status = partial(application_status, name)
        timeout_s, hint = recipe.serve.startup_timeout_s, engine.server_hint
        wait_until_running(status, timeout_s, ctx.progress(), hint, engine=start_state(recipe))
        healthy_s = time.monotonic() - started
        model_id = recipe.serve.model_id
        endpoint = Endpoint(
            url=listener.url,
            base=model_id,
            adapter=adapter.name_at(model_id) if adapter else None,
            adapter_sha256=adapter.sha256 if adapter else None,
            others={other.run_id: other.model for other in others},
            sampling=request_sampling(recipe),
            asks_for_key=key is not None,
        )
        for name in (names := endpoint.models):
            ctx.progress().update(round(time.monotonic() - started), None, "s", state=f"first request to {name}")
            warm(listener.url, name, timeout_s=recipe.serve.startup_timeout_s, key=key)
        sha256 = digest_json({"adapter": endpoint.adapter_sha256, "config": config, "only": only})
        metrics = {"healthy_s": round(healthy_s, 1), "startup_s": round(time.monotonic() - started, 1), "models": names}
        return StageResult([endpoint.artifact(sha256)], metrics, f"{listener.url} serves {' and '.join(names)}")


def with_capacity(recipe: Recipe, others: Sequence[ServedRun]) -> Recipe:
    """The recipe with capacity for all adapters in a replica, and for the largest of their ranks.

    Raises RunnerError when the recipe's own arguments of the engine are too small for one.
    """
    if not others:
        return recipe
    largest = max(others, key=lambda other: other.rank)
    kwargs = load_engine(recipe).with_rank(recipe, largest.rank, f"the adapter of the run {largest.run_id}")
    most = max(recipe.serve.max_adapters_per_replica, 1 + len(others))
    serve = recipe.serve.model_copy(update={"max_adapters_per_replica": most, "engine_kwargs": kwargs})
    return recipe.model_copy(update={"serve": serve})


def own_adapter(ctx: RunContext[Recipe]) -> Adapter | None:
    """The published adapter, which must be fit to be served (`stages.serve.fit`); None when the pipeline has none."""
    inputs, endpoint_url = ctx.inputs, ctx.recipe.storage.endpoint_url
    return fit_to_serve(inputs.get("adapter"), inputs.get("scores"), endpoint_url)


def served_adapters(adapter: Adapter | None, others: Sequence[ServedRun]) -> list[str]:
    """Ids of this run's adapter and the other runs'."""
    return [each.id for each in (adapter, *(other.adapter for other in others)) if each]


def deploy(args: Mapping[str, Any], user_config: Mapping[str, Any], listener: Listener) -> None:
    """Hand the application to Ray Serve, without waiting for it to start.

    args: of `build_app`. user_config: of `stages.serve.config.api_settings`.
    Raises RunnerError when Ray Serve LLM does not accept the configuration.
    """
    from ray import serve

    app = build_app({**args, "user_config": dict(user_config)})
    ray_serve.set_version(app, replica_version(args["llm_config"]))
    target = serve.RunTarget(target=app, name=listener.app_name, route_prefix=listener.route_prefix)
    serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
