"""Figures of training and of publishing what it made."""

from __future__ import annotations

import math
from collections.abc import Iterator

from runner.pipeline.estimates.figure import Estimate, Known
from runner.pipeline.estimates.rates import train_seconds
from stages.publish.stage import publish_plan
from stages.trainers.llamafactory.memory import checkpoint_bytes, train_memory, trained_params
from stages.trainers.llamafactory.output import is_model_file
from stages.trainers.llamafactory.rules import argument

_TOKENIZER = ("tokenizer", "chat_template", "vocab", "merges")


def train(known: Known) -> Iterator[Estimate]:
    recipe, model = known.recipe, known.model
    yield _steps(known)
    if model.architecture is None or model.num_params is None:
        yield known.unknown("memory of a worker", "bytes")
        yield known.unknown("checkpoints", "bytes")
    else:
        parts = train_memory(recipe, model.architecture, model.num_params)
        batch, length = argument(recipe, "per_device_train_batch_size"), argument(recipe, "cutoff_len")
        basis = f"batches of {batch} rows of {length} tokens; {model.basis}"
        yield known.memory("memory of a worker", parts, basis, most=True)
        trained = trained_params(recipe, model.architecture, model.num_params)
        each = trained if isinstance(trained, str) else checkpoint_bytes(recipe, trained)
        keep = recipe.train.checkpoints.keep
        if isinstance(each, str):
            yield known.unknown("checkpoints", "bytes", each)
        else:
            basis = f"{keep} (train.checkpoints.keep) of {trained:,} trained parameters with Adam's states"
            yield Estimate("checkpoints", keep * each, "bytes", basis, most=True)
    rows, why = _train_rows(known)
    if rows is None or argument(recipe, "max_steps") > 0:
        yield known.unknown("time", "s", why)
    else:
        epochs = recipe.train.num_epochs
        yield known.time(train_seconds(recipe, rows * epochs, known.past))


def _train_rows(known: Known) -> tuple[int | None, str]:
    """Rows that training uses, and where the number is from or why there is none."""
    recipe, rows = known.recipe, known.rows.counts["train"]
    most = recipe.train.max_samples
    for name in ("packing", "neat_packing", "streaming", "val_size"):
        if argument(recipe, name):
            return None, f"with train.args.{name} the number of training rows is not known beforehand"
    if argument(recipe, "max_steps") > 0:
        return rows, "train.args.max_steps ends the training"
    if rows is None:
        return None, known.rows.basis
    if most is not None and most < rows:
        return most, "train.max_samples"
    return rows, known.rows.basis


def _steps(known: Known) -> Estimate:
    """Optimizer steps, as transformers' Trainer counts them (`set_initial_training_values`)."""
    recipe = known.recipe
    if (said := argument(recipe, "max_steps")) > 0:
        return Estimate("steps", said, "steps", "train.args.max_steps")
    rows, basis = _train_rows(known)
    most = recipe.train.max_samples
    bounded = rows is None and most is not None and "packing" not in basis and "val_size" not in basis
    if rows is None and not bounded:
        return known.unknown("steps", "steps", basis)
    counted = most if rows is None else rows
    batch, gather = argument(recipe, "per_device_train_batch_size"), argument(recipe, "gradient_accumulation_steps")
    epochs = recipe.train.num_epochs
    workers = recipe.resources_of("train").num_workers
    per_epoch = max(1, math.ceil(math.ceil(math.ceil(counted / max(1, batch)) / workers) / max(1, gather)))
    where = f"train.max_samples; {basis}" if bounded else basis
    worked = f"{counted:,} rows ({where}) x {epochs:g} epoch{'' if epochs == 1 else 's'} in batches of {batch}"
    worked += f" x {workers} workers" if workers > 1 else ""
    worked += f" x {gather} gathered" if gather > 1 else ""
    return Estimate("steps", math.ceil(epochs * per_epoch), "steps", worked, most=bounded)


def publish(known: Known) -> Iterator[Estimate]:
    recipe = known.recipe
    step = known.steps.get("train")
    made = {artifact.name: artifact for artifact in step.record.artifacts} if step and step.record else {}
    if {"checkpoint", "training_log"} <= set(made):
        assert step is not None
        assert step.record is not None
        sets = publish_plan(recipe, made["checkpoint"], made["training_log"])
        size = sum(each.artifact.size_bytes for each in sets)
        basis = f"the files of run {step.record.origin_run}, to {recipe.storage.artifacts}"
        yield Estimate("upload", size, "bytes", basis)
    else:
        size_or_why = _adapter_bytes(known)
        if isinstance(size_or_why, str):
            yield known.unknown("upload", "bytes", size_or_why)
        else:
            size, basis = size_or_why
            yield Estimate("upload", size, "bytes", f"{basis}, to {recipe.storage.artifacts}")
    yield known.plain_time("publish")


def _adapter_bytes(known: Known) -> tuple[int, str] | str:
    """Bytes of the adapter to come and what they are, or why they are not known."""
    model = known.model
    if model.architecture is None or model.num_params is None:
        return model.basis
    trained = trained_params(known.recipe, model.architecture, model.num_params)
    if isinstance(trained, str):
        return trained
    basis = f"{trained:,} parameters in float32"
    if model.folder is None:
        return trained * 4, f"{basis}, without the tokenizer"
    beside = [path for path in model.folder.iterdir() if path.name.startswith(_TOKENIZER) and is_model_file(path)]
    return trained * 4 + sum(path.stat().st_size for path in beside), f"{basis}, and the tokenizer"
