"""The endpoint as data: what a Ray Serve config file says, and the application that is built from it.

`build_app` makes the application from plain values, for the serve stage and for Ray Serve, which imports it by name
when a config is applied (`serve deploy`, the cluster's REST API). A config keeps apart what a replica is made of
(`args`; a change replaces the replicas) and what can change under a running one (`deployments`: how many there are,
which adapters they serve, how long they may take to end).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from runner.errors import RunnerError
from runner.manifest import digest_json
from runner.schema import Recipe
from stages.endpoint_keys import ring_settings
from stages.serve_engine import llm_config

IMPORT_PATH = "stages.serve_config:build_app"

# Keys of a deployment that Serve changes in place.
_IN_PLACE = ("autoscaling_config", "graceful_shutdown_timeout_s")

# Ray Serve LLM's DEFAULT_MAX_TARGET_ONGOING_REQUESTS: it merges it into the autoscaling of an application that it
# builds, and not into what a config says in its place.
_TARGET_ONGOING = 1_000_000_000


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
    store. env: environment variables of the replicas (`stages.serve_engine.engine_env`).
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
    config = llm_config(recipe, model_path, adapters, env or {})
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
        "args": app_args(config),
        "deployments": [{"name": server_name(recipe), "user_config": api_settings(recipe, served), **in_place}],
    }


def app_name(recipe: Recipe) -> str:
    """Name of the recipe's application in Ray Serve."""
    return f"recipe-{recipe.name}"


def server_name(recipe: Recipe) -> str:
    """Name that Ray Serve LLM gives the deployment of the model's replicas."""
    return f"AdapterServer:{recipe.serve.model_id.replace('/', '--').replace('.', '_')}"


def app_args(config: Mapping[str, Any]) -> dict[str, Any]:
    """What `build_app` takes: all that a replica is made of. Serve replaces the replicas when it changes.

    config: as of `stages.serve_engine.llm_config`. The libraries' versions are there for that alone.
    """
    deployment = {name: value for name, value in config["deployment_config"].items() if name not in _IN_PLACE}
    libraries = {name: version(name) for name in ("ray", "recipe-runner")}
    return {"llm_config": {**config, "deployment_config": deployment}, "libraries": libraries}


def api_settings(recipe: Recipe, served: Sequence[str] | None) -> dict[str, Any]:
    """What a replica learns while it runs (`user_config`): adapters, and what `stages.endpoint_guard.Gate` takes.

    served: ids of the adapters that it knows; None: all in the store. It has no key in it, but the path of a file and
    digests. Raises RunnerError when `serve.api_keys.env` names no keys.
    """
    guard = {"keys": ring_settings(recipe.serve.api_keys), "limits": recipe.serve.limits.model_dump()}
    return {"only": None if served is None else list(served), "guard": guard}


def build_app(args: dict[str, Any]) -> Any:
    """The application (`ray.serve.Application`) of `app_args`.

    Raises RunnerError when Ray Serve LLM does not accept the settings.
    """
    from ray.serve.llm import LLMConfig, build_llm_deployment

    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # it would print the runtime_env, secrets and all
    options = {"user_config": args["user_config"]} if "user_config" in args else {}
    try:
        return build_llm_deployment(LLMConfig(**args["llm_config"]), override_serve_options=options)
    except (ValueError, TypeError) as error:  # pydantic's errors are ValueErrors
        raise RunnerError(
            f"Ray Serve LLM does not accept the recipe's settings: {error}",
            "Look at serve.engine_kwargs, infer.engine_kwargs, serve.autoscaling and serve.deployment.",
        ) from error


def pin_version(app: Any, version: str) -> None:
    """Have Serve replace the application's replicas only when the version differs; else every deploy replaces all."""
    app._bound_deployment._version = version


def replica_version(config: Mapping[str, Any]) -> str:
    """Digest of all that a replica is made of: everything but how many there are, and how long one may shut down."""
    args = app_args(config)
    deployment = {**args["llm_config"]["deployment_config"]}
    deployment.pop("num_replicas", None)
    return digest_json({**args["llm_config"], "deployment_config": deployment, "libraries": args["libraries"]})[:16]
