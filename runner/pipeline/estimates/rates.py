"""How long a stage took before, under the same conditions: the only ground on which a time is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runner.errors import RunnerError
from runner.pipeline.fingerprint import value_at
from runner.pipeline.manifest import StageRecord
from runner.pipeline.plan import PastRun, PastRuns
from runner.recipe.load import redact
from runner.recipe.machine import machine_name
from runner.recipe.schema import Recipe
from runner.storage.atomic import read_state

# Recipe keys that must be as they were for a stage's rate to hold, besides the cluster and the stage's resources.
_MODEL = ("model.source", "model.revision")
_ENGINE = (*_MODEL, "infer.engine_kwargs", "train.lora_rank")
_ROWS = ("dataset.source", "dataset.prompt", "dataset.max_rows")
_CONDITIONS: dict[str, tuple[str, ...]] = {
    "ingest": (*_MODEL, *_ROWS),
    "train": (*_MODEL, "train.stage"),
    "infer": (*_ENGINE, "infer.sampling", "infer.batch_size", "infer.concurrency"),
    "serve": (*_ENGINE, "serve.engine_kwargs", "serve.autoscaling"),
    "query": (*_ENGINE, "serve.engine_kwargs", "infer.sampling", "query"),
}
_CLUSTER = ("address", "num_cpus", "num_gpus", "accelerator", "cpu_kv_cache_gib")
# Training arguments that do not change the time that a row takes.
_TIMELESS_ARGS = ("learning_rate", "num_train_epochs", "max_samples", "max_steps", "seed", "lr_scheduler_type",
                  "warmup_ratio", "warmup_steps", "weight_decay")  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """A stage's newest record under the same conditions; `same_rows` tells whether its rows were the same, too."""

    record: StageRecord
    run_id: str
    same_rows: bool

    @property
    def basis(self) -> str:
        return f"run {self.run_id}" + ("" if self.same_rows else " on other rows")


def measured(recipe: Recipe, stage: str, past: PastRuns) -> Measured | None:
    """The newest run of the stage on this cluster, with this model, these resources and what else sets its speed."""
    now = redact(recipe.model_dump(mode="json"))
    for run, record in past.finished(stage):
        then = _recipe_of(run)
        if record.status != "done" or then is None or not _same_place(now, then, run, stage):
            continue
        if all(value_at(now, key) == value_at(then, key) for key in _CONDITIONS.get(stage, _MODEL)) and (
            stage != "train" or _work_args(now) == _work_args(then)
        ):
            same_rows = all(value_at(now, key) == value_at(then, key) for key in _ROWS)
            return Measured(record, run.manifest.run_id, same_rows)
    return None


def _recipe_of(run: PastRun) -> dict[str, Any] | None:
    try:
        return read_state(run.folder / "recipe.json")
    except (OSError, RunnerError):
        return None  # what cannot be compared gives no rate


def _same_place(now: dict[str, Any], then: dict[str, Any], run: PastRun, stage: str) -> bool:
    if any(value_at(now, f"cluster.{key}") != value_at(then, f"cluster.{key}") for key in _CLUSTER):
        return False
    if value_at(now, f"resources.{stage}") != value_at(then, f"resources.{stage}"):
        return False
    return now["cluster"]["address"] is not None or run.manifest.machine == machine_name()


def _work_args(values: dict[str, Any]) -> dict[str, Any]:
    args = value_at(values, "train.args") or {}
    return {name: value for name, value in args.items() if name not in _TIMELESS_ARGS}


def train_seconds(recipe: Recipe, num_rows: float, past: PastRuns) -> tuple[float, str] | str:
    """Seconds to train on so many rows in all (rows x epochs) and their basis, or why that is not known."""
    found = measured(recipe, "train", past)
    figures = found.record.metrics if found else {}
    if found is None or not figures.get("samples_per_s") or figures.get("resumed_at_step"):
        return _nothing("train")
    around = found.record.wall_s - figures["train_runtime_s"]
    rate = figures["samples_per_s"]
    basis = f"{found.basis}: {rate:.3g} rows/s over {figures['num_samples']} rows, and {around:.0f} s around them"
    return num_rows / rate + around, basis


def infer_seconds(recipe: Recipe, num_predictions: int, past: PastRuns) -> tuple[float, str] | str:
    """Seconds for so many predictions, the engine's start included, and their basis; or why that is not known."""
    found = measured(recipe, "infer", past)
    figures = found.record.metrics if found else {}
    if found is None or not figures.get("rows_per_s") or "engine_start_s" not in figures:
        return _nothing("infer")
    start, rate = figures["engine_start_s"], figures["rows_per_s"]
    basis = f"{found.basis}: engine ready in {start:.0f} s, then {rate:.3g} predictions/s"
    return start + num_predictions / rate, basis


def plain_seconds(recipe: Recipe, stage: str, past: PastRuns) -> tuple[float, str] | str:
    """Seconds that the stage took when it last ran, and in which run; or why that is not known."""
    found = measured(recipe, stage, past)
    return (found.record.wall_s, f"as in {found.basis}") if found else _nothing(stage)


def _nothing(stage: str) -> str:
    return f"no finished {stage} in storage.root with this model and these settings on this cluster"
