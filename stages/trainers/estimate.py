"""Figures of training, and of the adapter that it makes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from runner.cluster.accelerators import accelerator_of
from runner.pipeline.estimates.figure import Computed, Estimate, Known, Parts, memory, time, unknown
from runner.pipeline.estimates.rates import Conditions, measured, never_ran
from runner.pipeline.fingerprint import value_at
from runner.text import count_text
from stages.data.row_facts import known_rows
from stages.data.row_lengths import known_lengths
from stages.models.known import MODEL, conditions, known_model
from stages.models.speed.training import Method, batch_seconds
from stages.sections.recipe import Recipe
from stages.trainers.fit import ways
from stages.trainers.memory import Setup, checkpoint_bytes, train_memory, trained_params
from stages.trainers.output import is_model_file

START_S = {"gpu": 30.0, "cpu": 10.0}  # from the stage's start to its first step, and from its last to the end
_LOADED = 1e9  # bytes of weights a second
_TOKENIZER = ("tokenizer", "chat_template", "vocab", "merges")


# Arguments that do not change the time that a row takes.
_TIMELESS_ARGS = ("learning_rate", "num_train_epochs", "max_samples", "max_steps", "seed", "lr_scheduler",
                  "lr_scheduler_type", "warmup_ratio", "warmup_steps", "weight_decay")  # fmt: skip


def speed_conditions(values: Mapping[str, Any]) -> Conditions:
    """What a rate of training depends on. values: a recipe's as plain values."""
    args = value_at(values, "train.args") or {}
    return conditions(
        values, (*MODEL, "train.stage"), {name: value for name, value in args.items() if name not in _TIMELESS_ARGS}
    )


def _seconds(known: Known[Recipe], setup: Setup, num_rows: float) -> tuple[float, str] | Computed | str:
    """Seconds to train on so many rows in all (rows x epochs) and their basis, or why that is not known."""
    found = measured(known, "train")
    figures = found.record.metrics if found else {}
    if found is None or not figures.get("samples_per_s") or figures.get("resumed_at_step"):
        return _computed(known, setup, num_rows)
    around = found.record.wall_s - figures["train_runtime_s"]
    rate = figures["samples_per_s"]
    rows = count_text(figures["num_samples"], "row")
    basis = f"{found.basis}: {rate:.3g} rows/s over {rows}, and {around:.0f} s around them"
    return num_rows / rate + around, basis


def _computed(known: Known[Recipe], setup: Setup, num_rows: float) -> Computed | str:
    recipe, model, on = known.recipe, known_model(known), accelerator_of(known.recipe, "train")
    if model.architecture is None or on is None or recipe.train.stage not in ("sft", "pt"):
        return never_ran("train")
    lengths = known_lengths(known, "train")
    tokens = min(lengths.whole, setup.length) if lengths else setup.length
    batch = setup.batch * recipe.resources_of("train").most_workers
    method = Method(setup.kind == "full", setup.checkpointed)
    each = batch_seconds(model.architecture, on, setup.batch, tokens, method)
    start = START_S[recipe.cluster.accelerator] + (model.weights_bytes or 0) / _LOADED
    basis = (
        f"computed, until a run has measured it: {batch / each:.3g} rows/s of {tokens:.0f} tokens "
        f"({lengths.basis if lengths else 'the most, cutoff_len'}) on {on.name}, and {start:.0f} s around them"
    )
    return Computed(num_rows / batch * each + start, basis, most=lengths is None)


def train(known: Known[Recipe], setup: Setup) -> Iterator[Estimate]:
    """Steps, memory of a worker, checkpoints and time."""
    recipe, model = known.recipe, known_model(known)
    yield _steps(known, setup)
    if model.architecture is None or model.num_params is None:
        yield unknown("memory of a worker", "bytes", model.basis)
        yield unknown("checkpoints", "bytes", model.basis)
    else:
        parts = train_memory(recipe, setup, model.architecture, model.num_params)
        basis = f"batches of {count_text(setup.batch, 'row')} of {setup.length} tokens; {model.basis}"
        yield _within(known, setup, parts, basis)
        trained = trained_params(recipe, setup, model.architecture, model.num_params)
        each = trained if isinstance(trained, str) else checkpoint_bytes(setup, trained)
        keep = recipe.train.checkpoints.keep
        if isinstance(each, str):
            yield unknown("checkpoints", "bytes", each)
        else:
            basis = f"{keep} (train.checkpoints.keep) of {trained:,} trained parameters with Adam's states"
            yield Estimate("checkpoints", keep * each, "bytes", basis, most=True)
    rows, why = _train_rows(known, setup)
    if rows is None and _is_bounded(recipe, why) and measured(known, "train") is None:
        yield time(_computed(known, setup, (recipe.train.max_samples or 0) * recipe.train.num_epochs))
    elif rows is None or setup.max_steps:
        yield unknown("time", "s", why)
    else:
        yield time(_seconds(known, setup, rows * recipe.train.num_epochs))


def _within(known: Known[Recipe], setup: Setup, parts: Parts | str, basis: str) -> Estimate:
    """The memory other than that of the accelerator, with what would make it fit."""
    recipe, model, on = known.recipe, known_model(known), accelerator_of(known.recipe, "train")
    if on is None or model.architecture is None or model.num_params is None:
        return memory("memory of a worker", parts, basis, most=True)
    could = partial(ways, recipe, setup, model.architecture, model.num_params, on)
    return memory("memory of a worker", parts, basis, most=True, limit=on.usable, where=on.place, ways=could)


def _train_rows(known: Known[Recipe], setup: Setup) -> tuple[int | None, str]:
    """Rows that training uses, and where the number is from or why there is none."""
    recipe, rows = known.recipe, known_rows(known).counts["train"]
    most = recipe.train.max_samples
    if setup.rows_by:
        return None, f"with train.args.{setup.rows_by} the number of training rows is not known beforehand"
    if setup.max_steps:
        return rows, "train.args.max_steps ends the training"
    if rows is None:
        return None, known_rows(known).basis
    if most is not None and most < rows:
        return most, "train.max_samples"
    return rows, known_rows(known).basis


def _is_bounded(recipe: Recipe, basis: str) -> bool:
    """Whether only `train.max_samples` says how many rows there can be. basis: why the rows are not known."""
    return recipe.train.max_samples is not None and "packing" not in basis and "val_size" not in basis


def _steps(known: Known[Recipe], setup: Setup) -> Estimate:
    """Optimizer steps, as transformers' Trainer counts them (`set_initial_training_values`)."""
    recipe = known.recipe
    if setup.max_steps:
        return Estimate("steps", setup.max_steps, "steps", "train.args.max_steps")
    rows, basis = _train_rows(known, setup)
    most = recipe.train.max_samples
    bounded = rows is None and _is_bounded(recipe, basis)
    if rows is None and not bounded:
        return unknown("steps", "steps", basis)
    counted = rows if rows is not None else most or 0
    batch, gather = setup.batch, setup.gather
    epochs = recipe.train.num_epochs
    workers = recipe.resources_of("train").most_workers
    per_epoch = max(1, math.ceil(math.ceil(math.ceil(counted / max(1, batch)) / workers) / max(1, gather)))
    where = f"train.max_samples; {basis}" if bounded else basis
    worked = f"{count_text(counted, 'row')} ({where}) x {count_text(epochs, 'epoch')} in batches of {batch}"
    worked += f" x {workers} workers" if workers > 1 else ""
    worked += f" x {gather} gathered" if gather > 1 else ""
    return Estimate("steps", math.ceil(epochs * per_epoch), "steps", worked, most=bounded)


def adapter_bytes(known: Known[Recipe], setup: Setup) -> tuple[int, str] | str:
    """Bytes of the adapter to come and what they are, or why they are not known."""
    model = known_model(known)
    if model.architecture is None or model.num_params is None:
        return model.basis
    trained = trained_params(known.recipe, setup, model.architecture, model.num_params)
    if isinstance(trained, str):
        return trained
    basis = f"{trained:,} parameters in float32"
    if model.folder is None:
        return trained * 4, f"{basis}, without the tokenizer"
    others = [path for path in model.folder.iterdir() if path.name.startswith(_TOKENIZER) and is_model_file(path)]
    return trained * 4 + sum(path.stat().st_size for path in others), f"{basis}, and the tokenizer"
