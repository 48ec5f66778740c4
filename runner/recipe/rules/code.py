"""Rules about arguments of the libraries that name code to run: recipes carry none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runner.errors import Problem
from runner.recipe.schema import Recipe

# Argument -> values of the library's own; a text that is none of these would be imported, or read as a pickle.
_ENGINE: Mapping[str, tuple[Any, ...]] = {
    "worker_cls": ("auto",),
    "worker_extension_cls": (),
    "scheduler_cls": (),
    "logits_processors": (),
    "io_processor_plugin": (),
    "reasoning_parser_plugin": (),
    "tool_parser_plugin": (),
    "model_class_overrides": (),
    "distributed_executor_backend": ("ray", "mp", "uni", "external_launcher"),
    "enable_prompt_embeds": (),
}
_RUNTIME_ENV = ("py_executable", "worker_process_setup_hook")
_HINT = "Remove it. Code is added as an installed package: a stage of your own, with an entry point."


def engines_run_their_own_code(recipe: Recipe) -> Iterator[Problem]:
    """vLLM imports a class or a file that an argument names, and reads pickles where it is told to."""
    for section, kwargs in (("infer", recipe.infer.engine_kwargs), ("serve", recipe.serve.engine_kwargs)):
        for name, own in _ENGINE.items():
            value = kwargs.get(name)
            if value and value not in own:
                yield _problem(f"{section}.engine_kwargs.{name}", value)
        if kwargs.get("load_format") in ("pt", "mistral_pt"):
            message = "reads pickled weights, which can run code"
            key = f"{section}.engine_kwargs.load_format"
            yield Problem(key, kwargs["load_format"], message, "Give safetensors, and leave load_format out.")
        for name in ("kv_transfer_config", "ec_transfer_config"):
            for inner, value in _entries(kwargs.get(name)):
                if inner.endswith("module_path") and value:
                    yield _problem(f"{section}.engine_kwargs.{name}.{inner}", value)


def serve_runs_its_own_code(recipe: Recipe) -> Iterator[Problem]:
    """Ray Serve imports routers, policies and actors by name."""
    deployment = recipe.serve.deployment
    if value := deployment.get("deployment_actors"):
        yield _problem("serve.deployment.deployment_actors", value)
    named = (
        ("serve.deployment.request_router_config", deployment.get("request_router_config"), "request_router_class"),
        ("serve.autoscaling.policy", recipe.serve.autoscaling.get("policy"), "policy_function"),
    )
    for key, mapping, name in named:
        for inner, value in _entries(mapping):
            if inner == name and value and not str(value).startswith(("ray.serve.", "ray.llm.")):
                yield _problem(f"{key}.{inner}", value)
    options = dict(_entries(deployment.get("ray_actor_options")))
    yield from _environment("serve.deployment.ray_actor_options.runtime_env", options.get("runtime_env"))


def runtime_environments_run_nothing(recipe: Recipe) -> Iterator[Problem]:
    for stage, wanted in recipe.resources.items():
        yield from _environment(f"resources.{stage}.runtime_env", wanted.runtime_env)


def _environment(key: str, environment: Any) -> Iterator[Problem]:
    for name, value in _entries(environment):
        if name in _RUNTIME_ENV and value:
            yield _problem(f"{key}.{name}", value)


def _entries(mapping: Any) -> list[tuple[str, Any]]:
    return [(str(name), value) for name, value in mapping.items()] if isinstance(mapping, dict) else []


def _problem(key: str, value: Any) -> Problem:
    return Problem(key, value, "names code to run: recipes carry no code", _HINT)


RULES = (engines_run_their_own_code, serve_runs_its_own_code, runtime_environments_run_nothing)
