"""Batch inference by `ray.data.llm` and vLLM: engines that start for a batch job and end with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runner.cluster import environments
from runner.cluster.environments.ahead import ImportAhead
from runner.cluster.environments.fork_server import AFTER_FORK
from runner.cluster.session import own_sigterm, worker_bundle
from runner.errors import RunnerError
from stages.engines.vllm.cpu import cpu_engine_env
from stages.engines.vllm.lora import engine_rank
from stages.engines.vllm.serving.server import num_ranks
from stages.engines.work import Work
from stages.patches import vllm_forkserver
from stages.patches.vllm_forkserver import ENGINE_IN_REPLICA
from stages.sections.recipe import Recipe

CPU_EXECUTOR = "stages.patches.vllm_cpu_lora.CpuExecutor"

# Ray Data gives a task a whole CPU. On few cores the other tasks would then wait for the engine's CPUs without end, so
# they ask for none; there is one of each kind for an engine.
_WITH_ENGINE = {"num_cpus": 0}
# Ray Data restarts an engine that dies as often as it dies, which for one that always does means without end.
_ENGINE_RESTARTS = {"max_restarts": 2, "max_task_retries": 2}
_MAX_CHUNKS = 2_000
_IMPORT = f"{vllm_forkserver.__name__}:{vllm_forkserver.import_vllm.__name__}"
_FORK = f"{vllm_forkserver.__name__}:{vllm_forkserver.fork.__name__}"
_BATCHES_AT_ONCE = 8  # in an engine's actor; Ray's default


def vllm_processor_config(
    recipe: Recipe, source: str, lora_rank: int | None, runtime_env: Mapping[str, Any]
) -> dict[str, Any]:
    """The recipe as keyword arguments of `ray.data.llm.vLLMEngineProcessorConfig`.

    source: folder of the model. lora_rank: of the adapter to load as well; None without one.
    runtime_env: of the engines.
    """
    resources = recipe.resources_of("infer")
    bundle = {name: amount for name, amount in worker_bundle(resources).items() if "accelerator_type" not in name}
    config: dict[str, Any] = {
        "model_source": source,
        # Without statistics, as vLLM's own batch engine: the process that feeds the engine would enter each token.
        "engine_kwargs": {"disable_log_stats": True, **engine_kwargs(recipe, lora_rank)},
        "log_engine_metrics": False,
        "batch_size": recipe.infer.batch_size,
        "max_concurrent_batches": _BATCHES_AT_ONCE,
        # All of their rows are the engine's at once. Ray's own limit is a tenth more than the engine computes at a
        # time: where many answers end together, it would wait for the next prompts and compute half-empty batches.
        "max_pending_requests": _BATCHES_AT_ONCE * recipe.infer.batch_size,
        "concurrency": (recipe.infer.concurrency, recipe.infer.concurrency),
        "runtime_env": dict(runtime_env),
        # A row that the engine refuses (too long, say) becomes a row with an error, not the end of the job.
        "should_continue_on_error": True,
        "placement_group_config": {"bundle_per_worker": bundle, "strategy": resources.placement_strategy},
        # The requests come tokenized (`Work.ask`) and the engine turns its tokens into text itself: three processes
        # less, and no second beginning-of-text token, which Ray's tokenize stage adds to what a chat template wrote.
        "chat_template_stage": False,
        "tokenize_stage": False,
        "detokenize_stage": False,
    }
    if resources.accelerator_type:
        config["accelerator_type"] = resources.accelerator_type
    return config


def engine_kwargs(recipe: Recipe, lora_rank: int | None) -> dict[str, Any]:
    """The recipe's `infer.engine_kwargs`, with LoRA when there is an adapter. Raises RunnerError when it cannot fit."""
    kwargs = dict(recipe.infer.engine_kwargs)
    if recipe.model.trust_remote_code:
        kwargs["trust_remote_code"] = True
    if recipe.model.reasoning_parser is not None:  # a prescribed form begins after the reasoning, as at the endpoint
        kwargs["reasoning_parser"] = recipe.model.reasoning_parser
    if recipe.cluster.accelerator == "cpu" and num_ranks(recipe.infer.engine_kwargs) == 1:
        kwargs.setdefault("distributed_executor_backend", CPU_EXECUTOR)
    if lora_rank is None:
        return kwargs
    kwargs["enable_lora"] = True
    kwargs.setdefault("max_lora_rank", engine_rank(lora_rank))
    if kwargs["max_lora_rank"] < lora_rank:
        raise RunnerError(
            f"infer.engine_kwargs.max_lora_rank={kwargs['max_lora_rank']} is below the adapter's rank {lora_rank}",
            "Raise it, or leave it out to have it follow the adapter.",
        )
    return kwargs


def engine_runtime_env(recipe: Recipe, environment: str | None, imported: ImportAhead) -> dict[str, Any]:
    """The runtime environment of the engines. Those of one rank are forked from a process that imports vLLM."""
    settings = engine_settings(recipe, environment)
    if ENGINE_IN_REPLICA in settings["env_vars"]:
        return imported(environment, (_IMPORT,), settings)
    return environments.runtime_env(environment, settings)


def engine_settings(recipe: Recipe, environment: str | None = None) -> dict[str, Any]:
    """The stage's `runtime_env`; on CPUs with the environment that lets every core compute, which it may override.

    An engine of one rank has its worker in its own process, which is forked from one that has imported vLLM.
    """
    resources = recipe.resources_of("infer")
    env = {"VLLM_NO_USAGE_STATS": "1"}
    executor = recipe.infer.engine_kwargs.get("distributed_executor_backend")
    if num_ranks(recipe.infer.engine_kwargs) == 1 and executor in (None, "uni", CPU_EXECUTOR):
        env |= {ENGINE_IN_REPLICA: recipe.cluster.accelerator, AFTER_FORK: _FORK}
    if recipe.cluster.accelerator == "cpu":
        env |= cpu_engine_env(recipe.cluster, resources.cpus_per_worker, environment)
    return environments.with_variables(resources.runtime_env, env)


def build(config: Any, **options: Any) -> Any:
    """Ray's processor. Building one calls `ray.init` once more, which would take the run's handler of SIGTERM away."""
    from ray.data.llm import build_processor

    with own_sigterm():
        return build_processor(config, **options)


def generate(
    recipe: Recipe,
    pieces: list[dict[str, Any]],
    work: Work,
    runtime_env: Mapping[str, Any],
    *,
    in_environment: bool,
) -> Iterator[list[dict[str, Any]]]:
    """The results of the pieces' rows, in the order in which the engines finish them.

    runtime_env: of the engines. in_environment: run the job by its interpreter as well, because `ray.data.llm` imports
    torch; else in this process.
    """
    config = vllm_processor_config(recipe, work.source, work.lora_rank, runtime_env)
    if not in_environment:
        yield from _job(config, pieces, work, {})
        return
    import ray

    own = {"runtime_env": {"py_executable": runtime_env["py_executable"]}}
    job = ray.remote(num_returns="streaming", num_cpus=0, max_retries=0, **own)(_job)
    results = job.remote(config, pieces, work, own)
    try:
        for each in results:
            yield ray.get(each)
    finally:
        ray.cancel(results)


def _job(
    config: dict[str, Any], pieces: list[dict[str, Any]], work: Work, own: dict[str, Any]
) -> Iterator[list[dict[str, Any]]]:
    """`generate` in the process that it is called in. config: `vllm_processor_config`; own: options of its tasks."""
    import ray
    from ray.data.llm import vLLMEngineProcessorConfig

    from stages.patches.ray_data import ask_for_whole_answers

    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.issue_detectors_config.detectors = []  # they warn that the tokenizer takes memory
    others = {**_WITH_ENGINE, **own, "compute": ray.data.TaskPoolStrategy(size=config["concurrency"][0])}
    with ray.data.DataContext.current(context):
        processor = build(
            vLLMEngineProcessorConfig(**config),
            preprocess=work.ask,
            preprocess_map_kwargs=others,
            postprocess_map_kwargs=others,
        )
        ask_for_whole_answers(processor)
        processor.get_stage_by_name("vLLMEngineStage").map_batches_kwargs.update(_ENGINE_RESTARTS)
        given = ray.data.from_items(pieces, override_num_blocks=min(len(pieces), _MAX_CHUNKS))
        results = processor(given.flat_map(work.read, **others)).map(work.tell, **others)
        for batch in results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield batch.to_pylist()
