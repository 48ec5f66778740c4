"""What Ray Serve LLM's replicas are given: engine arguments, resources and environment, from the recipe alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.cluster import environments
from runner.cluster.session import worker_bundle
from stages.engines.base import RUNS_IN
from stages.engines.vllm.cpu import cpu_engine_env
from stages.engines.vllm.lora import engine_rank
from stages.models.chat.content_form import requests_in_parts
from stages.models.chat_template import template_text
from stages.models.vision import processor_template
from stages.patches.vllm_forkserver import ENGINE_IN_REPLICA
from stages.sections.recipe import Recipe

# Ray's batch inference names the runner too. vLLM hashes it by its name, so that with another one (its default is auto,
# which means the same for these models) the endpoint would not find the graphs that batch inference compiled.
_RUNNER = {"runner": "generate"}


def llm_config(
    recipe: Recipe, model_path: str, adapters: str | None, env: Mapping[str, str], environment: str | None = None
) -> dict[str, Any]:
    """What `ray.serve.llm.LLMConfig` takes.

    model_path: the model's folder. adapters: URI of the folder of adapters, None for the base model alone.
    env: environment variables of the replicas; the recipe's own runtime_env wins over them.
    environment: that the replicas run in; None for the runner's own.
    """
    on_cpu, resources = recipe.cluster.accelerator == "cpu", recipe.resources_of("serve")
    bundle = {key: amount for key, amount in worker_bundle(resources).items() if not key.startswith("accelerator_type")}
    runtime_env = environments.with_variables(resources.runtime_env, env)
    actor = {"num_cpus": 0, **({"num_gpus": bundle.pop("GPU")} if has_gpu_itself(recipe) else {})}
    chat = chat_kwargs(recipe, model_path)
    config: dict[str, Any] = {
        "model_loading_config": {"model_id": recipe.serve.model_id, "model_source": model_path},
        "callback_config": {"callback_class": "stages.engines.vllm.serving.replica:LocalModel"},
        "engine_kwargs": {
            **_RUNNER,
            **engine_kwargs(recipe, with_adapters=adapters is not None),
            **chat,
        },
        "accelerator_config": {"kind": "cpu" if on_cpu else "gpu"},
        # The bundle is all that a replica gets; its own actor asks for no CPU on top of it. Its GPU is added to it.
        "placement_group_config": {"bundle_per_worker": bundle, "strategy": resources.placement_strategy},
        "deployment_config": {
            "autoscaling_config": dict(recipe.serve.autoscaling),
            "ray_actor_options": actor,
            "max_constructor_retry_count": 1,
            # Replicas that are replaced or taken down finish their requests first.
            "graceful_shutdown_timeout_s": recipe.serve.request_timeout_s,
            **recipe.serve.deployment,
        },
        "runtime_env": runtime_env,
        "experimental_configs": {},
    }
    if environment:  # whose interpreter is known where the application is built; another lock makes another replica
        lock = environments.held(environment, "cpu" if on_cpu else "gpu")
        config["experimental_configs"][RUNS_IN] = {"name": environment, "lock": lock.lock_sha256 if lock else None}
    if resources.accelerator_type and not on_cpu:
        config["accelerator_type"] = resources.accelerator_type
    if adapters is not None:
        config["lora_config"] = {"max_num_adapters_per_replica": recipe.serve.max_adapters_per_replica}
        if "://" in adapters:
            config["lora_config"]["dynamic_lora_loading_path"] = adapters
        place = {"uri": adapters, "cache": recipe.storage.cache, "base_model": recipe.model.source}
        config["experimental_configs"]["adapter_store"] = place
    return config


def has_gpu_itself(recipe: Recipe) -> bool:
    """Whether a replica's own actor takes the GPU of its engine, or its share of one, which then runs in one process
    below it.

    Ray Serve LLM gives the GPU to a further actor, that vLLM's Ray executor starts and asks for every step. That one
    cannot schedule a step while another is computed, and has processes that import vLLM one after the other.
    """
    one_gpu = recipe.cluster.accelerator != "cpu" and 0 < recipe.resources_of("serve").gpus_per_worker <= 1
    kwargs = recipe.serve.engine_kwargs
    alone = num_ranks(kwargs) == 1 and "data_parallel_size" not in kwargs
    return one_gpu and alone and "ray_actor_options" not in recipe.serve.deployment


def engine_kwargs(recipe: Recipe, *, with_adapters: bool) -> dict[str, Any]:
    """vLLM's arguments: `serve.engine_kwargs`, which hold batch inference's already, with LoRA as the recipe says."""
    kwargs = dict(recipe.serve.engine_kwargs)
    if recipe.model.trust_remote_code:
        kwargs["trust_remote_code"] = True
    if not with_adapters:
        return {key: value for key, value in kwargs.items() if key not in ("enable_lora", "max_loras", "max_lora_rank")}
    max_loras = recipe.serve.max_adapters_per_replica
    return {"max_lora_rank": engine_rank(recipe.train.lora_rank), **kwargs, "enable_lora": True, "max_loras": max_loras}


def chat_kwargs(recipe: Recipe, model_path: Path | str) -> dict[str, Any]:
    """Chat template and parsers, as vLLM's endpoint takes them: those of training and batch inference."""
    return {**template_kwargs(recipe, model_path), **parser_kwargs(recipe)}


def template_kwargs(recipe: Recipe, model_path: Path | str) -> dict[str, Any]:
    """The chat template and its variables.

    Content is given to the template as it is there: as text, or as parts. vLLM would tell by the template's loops, and
    so give parts to many that write texts as well. Raises RunnerError when the template cannot be read.
    """
    in_parts = requests_in_parts(recipe, model_path)
    kwargs: dict[str, Any] = {"chat_template_content_format": "openai" if in_parts else "string"}
    text = template_text(recipe.model.chat_template)
    if text is None:
        text = processor_template(model_path)  # for requests with tools as well
    if text is not None:
        kwargs["chat_template"] = text
    if recipe.model.chat_template_kwargs:
        kwargs["default_chat_template_kwargs"] = dict(recipe.model.chat_template_kwargs)
    return kwargs


def parser_kwargs(recipe: Recipe) -> dict[str, Any]:
    """The parsers of tool calls and reasoning."""
    kwargs: dict[str, Any] = {}
    if recipe.model.tool_parser is not None:
        kwargs |= {"enable_auto_tool_choice": True, "tool_call_parser": recipe.model.tool_parser}
    if recipe.model.reasoning_parser is not None:
        kwargs["reasoning_parser"] = recipe.model.reasoning_parser
    return kwargs


def engine_env(recipe: Recipe, environment: str | None = None) -> dict[str, str]:
    """Environment of the replicas, with what the recipe's `runtime_env` says.

    Without HAProxy, Ray Serve passes requests and each token of an answer from process to process by calls of actors,
    or by gRPC, which takes half the time: 32 clients of a random model of two layers got 1,300 to 1,570 tokens/s from
    two CPU cores instead of 750, and a first token took 22 ms instead of 31 (`python -m benchmarks.serve --python-proxy
    model.source=FOLDER --clients 1 32`, without this variable and with it).
    """
    env = {"VLLM_NO_USAGE_STATS": "1", "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1"}
    one_rank_on_cpu = recipe.cluster.accelerator == "cpu" and num_ranks(recipe.serve.engine_kwargs) == 1
    if one_rank_on_cpu or has_gpu_itself(recipe):
        env[ENGINE_IN_REPLICA] = recipe.cluster.accelerator
    if recipe.cluster.accelerator == "cpu":
        env["VLLM_MEDIA_LOADING_THREAD_COUNT"] = "1"  # images of some requests would take all cores from the others
        env |= cpu_engine_env(recipe.cluster, recipe.resources_of("serve").cpus_per_worker, environment)
    if recipe.storage.endpoint_url:
        env["AWS_ENDPOINT_URL"] = recipe.storage.endpoint_url
    return env


def num_bundles(recipe: Recipe) -> int:
    """Workers of all replicas that are there from the start: each has one for every tensor and pipeline rank."""
    return num_ranks(recipe.serve.engine_kwargs) * max(1, int(recipe.serve.autoscaling.get("min_replicas") or 1))


def num_ranks(kwargs: Mapping[str, Any]) -> int:
    """Processes of an engine that compute: tensor parallel times pipeline parallel. kwargs: vLLM's arguments."""
    return int(kwargs.get("tensor_parallel_size", 1)) * int(kwargs.get("pipeline_parallel_size", 1))
