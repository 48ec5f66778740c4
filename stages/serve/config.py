"""The endpoint as data: what a Ray Serve config file says, and the application that is built from it.

`build_app` makes the application from plain values, for the serve stage and for Ray Serve, which imports it by name
when a config is applied (`serve deploy`, the cluster's REST API). A config keeps apart what a replica is made of
(`args`; a change replaces the replicas) and what can change under a running one (`deployments`: how many there are,
which adapters they serve, how long they may take to end).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from importlib.metadata import version
from typing import Any

from runner import __version__
from runner.cluster import environments
from runner.errors import RunnerError
from runner.storage.digest import digest_json
from stages.engines.base import DEFAULT, RUNS_IN, Engine, engine_named, load_engine
from stages.sections.recipe import Recipe
from stages.serve.guard.keys import ring_settings

IMPORT_PATH = "stages.serve.config:build_app"

# Keys of a deployment that Serve changes in place.
_IN_PLACE = ("autoscaling_config", "graceful_shutdown_timeout_s")

# Ray Serve LLM's own defaults (DEFAULT_DEPLOYMENT_OPTIONS). What a config says of autoscaling takes the place of all
# that the application says of it, so it must say the target too.
_MAX_ONGOING = _TARGET_ONGOING = 1_000_000_000
_HEALTH_CHECK_S = 10


def serve_config(
    recipe: Recipe,
    model_path: str,
    adapters: str | None,
    *,
    served: Sequence[str] | None = None,
    env: Mapping[str, str] | None = None,
    route_prefix: str = "/",
) -> dict[str, Any]:
    """A Ray Serve config (`ray.serve.schema.ServeDeploySchema`) of JSON values: the endpoint that the recipe describes.

    model_path: the base model's folder, as the cluster's nodes see it. adapters: URI of the folder of adapters in the
    store, None for the base model alone. served: ids of the adapters that the endpoint knows; None knows all in the
    store. env: environment variables of the replicas (the engine's `server_env`).
    Raises RunnerError when the recipe's keys contradict each other, or the port is left to chance.
    """
    if recipe.serve.port == 0:
        raise RunnerError("serve.port=0 takes a free port, which a config file cannot say", "Set serve.port.")
    return {
        "proxy_location": "HeadOnly",
        "http_options": {
            "host": recipe.serve.host,
            "port": recipe.serve.port,
            "request_timeout_s": recipe.serve.request_timeout_s,
        },
        "applications": [application(recipe, model_path, adapters, served=served, env=env, route_prefix=route_prefix)],
    }


def application(
    recipe: Recipe,
    model_path: str,
    adapters: str | None,
    *,
    served: Sequence[str] | None = None,
    env: Mapping[str, str] | None = None,
    route_prefix: str = "/",
) -> dict[str, Any]:
    """One of a config's `applications` (`ray.serve.schema.ServeApplicationSchema`); arguments as of `serve_config`."""
    config = load_engine(recipe).server_config(recipe, model_path, adapters, env or {})
    deployment = config["deployment_config"]
    in_place = {name: deployment[name] for name in _IN_PLACE if name in deployment}
    scaling = in_place.get("autoscaling_config")
    if scaling is not None:
        in_place["autoscaling_config"] = {"target_ongoing_requests": _TARGET_ONGOING, **scaling}
    code = {name: uri for name, uri in config["runtime_env"].items() if name in ("working_dir", "py_modules")}
    return {
        "name": app_name(recipe),
        "route_prefix": route_prefix,
        "import_path": IMPORT_PATH,
        **({"runtime_env": code} if code else {}),
        "args": {**app_args(config), **engine_arg(recipe)},
        "deployments": [{"name": server_name(recipe), "user_config": api_settings(recipe, served), **in_place}],
    }


def app_name(recipe: Recipe) -> str:
    """Name of the recipe's application in Ray Serve."""
    return f"recipe-{recipe.name}"


def server_name(recipe: Recipe) -> str:
    """Name of the deployment of the recipe's replicas."""
    return deployment_name(recipe.serve.model_id)


def deployment_name(model_id: str) -> str:
    """Name of the deployment of a model's replicas."""
    return f"AdapterServer:{model_id.replace('/', '--').replace('.', '_')}"


def app_args(config: Mapping[str, Any]) -> dict[str, Any]:
    """What `build_app` takes: all that a replica is made of. Serve replaces the replicas when it changes.

    config: of the engine's `server_config`. The libraries' versions are there for that alone.
    """
    deployment = {name: value for name, value in config["deployment_config"].items() if name not in _IN_PLACE}
    libraries = {"ray": version("ray"), "recipe-runner": __version__}  # a plain checkout has no metadata of its own
    return {"llm_config": {**config, "deployment_config": deployment}, "libraries": libraries}


def engine_arg(recipe: Recipe) -> dict[str, str]:
    """What `build_app` takes besides: the engine, where it is not the default."""
    return {} if recipe.infer.backend == DEFAULT else {"engine": recipe.infer.backend}


def api_settings(recipe: Recipe, served: Sequence[str] | None) -> dict[str, Any]:
    """What a replica learns while it runs (`user_config`): adapters, and what `stages.serve.guard.gate.Gate` takes.

    served: ids of the adapters that it knows; None: all in the store. It has no key in it, but the path of a file and
    digests. Raises RunnerError when `serve.api_keys.env` names no keys.
    """
    guard = {"keys": ring_settings(recipe.serve.api_keys), "limits": recipe.serve.limits.model_dump()}
    return {"only": None if served is None else list(served), "guard": guard}


def build_app(args: dict[str, Any]) -> Any:
    """The application (`ray.serve.Application`) of `app_args`, with `user_config` where they have one.

    The replicas alone import what they are made of: `ray.serve.llm` and vLLM with it take the process that builds an
    application 7 s on two CPU cores, and 20 s were seen with a GPU.
    Raises RunnerError when Ray Serve does not accept the settings.
    """
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # what it does is the run's to tell
    config, engine = _with_interpreter(args["llm_config"]), engine_named(args.get("engine", DEFAULT))
    own = {"user_config": args["user_config"]} if "user_config" in args else {}
    name = deployment_name(config["model_loading_config"]["model_id"])
    try:
        deployment = serve.deployment(name=name, **deployment_options(config, engine), **own)(engine.server)
    except (ValueError, TypeError) as error:  # pydantic's errors are ValueErrors
        raise RunnerError(
            f"Ray Serve does not accept the recipe's settings: {error}",
            "Look at serve.autoscaling and serve.deployment.",
        ) from error
    return deployment.bind(llm_config=config, front=_front)


def _with_interpreter(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the interpreter of the replicas' environment, as it is where the application is built."""
    chosen = config["experimental_configs"].get(RUNS_IN)
    name = chosen["name"] if chosen else None
    return {**config, "runtime_env": environments.runtime_env(name, config["runtime_env"])}


def _front() -> Any:
    """Made in the replica, which alone imports it."""
    from stages.serve.guard.front import GuardedFront

    return GuardedFront()


def deployment_options(config: Mapping[str, Any], engine: Engine) -> dict[str, Any]:
    """Arguments of `ray.serve.deployment`, as Ray Serve LLM's `build_llm_deployment` makes them of the same settings.

    config: of the engine's `server_config`.
    """
    import ray

    options = deepcopy(config["deployment_config"])
    actor = options.setdefault("ray_actor_options", {})
    own = {"CPU": actor.get("num_cpus", 1), "GPU": actor.get("num_gpus", 0), **actor.get("resources", {})}
    if "memory" in actor:
        own["memory"] = actor["memory"]
    placement = config["placement_group_config"]
    hint = {f"accelerator_type:{config['accelerator_type']}": 0.001} if config.get("accelerator_type") else {}
    bundles = [{**hint, **placement["bundle_per_worker"]} for _ in range(engine.ranks(config["engine_kwargs"]))]
    first = bundles[0]  # the actor's own place is with the first of its workers
    bundles[0] = {name: first.get(name, 0) + own.get(name, 0) for name in {**first, **own}}
    cluster_env = ray.get_runtime_context().runtime_env if ray.is_initialized() else {}
    actor["runtime_env"] = {**cluster_env, **actor.get("runtime_env", {}), **config["runtime_env"]}
    scaling = options.get("autoscaling_config")  # a config file has it next to the application's arguments
    if scaling is not None or "num_replicas" not in options:
        options["autoscaling_config"] = {"target_ongoing_requests": _TARGET_ONGOING, **(scaling or {})}
    return {
        "max_ongoing_requests": _MAX_ONGOING,
        "health_check_period_s": _HEALTH_CHECK_S,
        "health_check_timeout_s": _HEALTH_CHECK_S,
        "placement_group_bundles": bundles,
        "placement_group_strategy": placement["strategy"],
        **options,
    }


def replica_version(config: Mapping[str, Any]) -> str:
    """Digest of all that a replica is made of: everything but how many there are, and how long one may shut down."""
    args = app_args(config)
    deployment = {**args["llm_config"]["deployment_config"]}
    deployment.pop("num_replicas", None)
    return digest_json({**args["llm_config"], "deployment_config": deployment, "libraries": args["libraries"]})[:16]
