"""What another run has trained, which training continues (`train.start_from`): its adapter, or its whole model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.errors import Problem, RunnerError
from runner.pipeline.context import RunContext
from runner.storage.artifact import Artifact
from runner.storage.atomic import read_state
from stages.models.adapter import CONFIG
from stages.models.weights import Adapter, weights_of
from stages.sections.recipe import Recipe
from stages.serve.other_runs import manifest_in, run_folder, whole
from stages.trainers.base import load_trainer

KEY = "train.start_from"
_METHODS = ("pt", "sft", "dpo", "kto")
_TARGET = "train.lora_target"
_WHAT = {"adapter": "an adapter", "model": "a whole model"}


@dataclass(frozen=True)
class Start:
    """What a run has left. weights: its adapter or model; base: digest of the model that it was trained on. config: of
    PEFT's adapter_config.json, None for a model. target: the run's `train.lora_target`."""

    weights: Artifact
    base: str | None
    config: dict[str, Any] | None
    target: str

    @property
    def kind(self) -> str:
        """adapter, or model."""
        return "model" if self.config is None else "adapter"

    @property
    def adapter(self) -> Path | None:
        return self.weights.path if self.kind == "adapter" else None

    @property
    def model(self) -> Path | None:
        return self.weights.path if self.kind == "model" else None


def start_of(recipe: Recipe) -> Start | None:
    """The start that the recipe names. Raises RunnerError when there is no such run, or it has trained nothing."""
    if (run_id := recipe.train.start_from) is None:
        return None
    folder = run_folder(recipe, run_id, KEY)
    manifest = manifest_in(folder, run_id, KEY)
    weights, model = manifest.artifact("trained_weights"), manifest.artifact("model")
    if weights is None:
        raise RunnerError(f"{KEY} names the run {run_id!r}, which has trained nothing", "Name a run that ran train.")
    is_adapter = isinstance(weights_of(weights), Adapter)
    config = json.loads((weights.path / CONFIG).read_text(encoding="utf-8")) if is_adapter else None
    target = read_state(folder / "recipe.json")["train"]["lora_target"]
    return Start(weights, model.sha256 if model else None, config, target)


def start_fits(recipe: Recipe) -> Iterator[Problem]:
    """Which other run is there is only known where this run's cluster is this machine."""
    train, trainer = recipe.train, load_trainer(recipe)
    if train.start_from is None or "train" not in recipe.pipeline:
        return
    if train.stage not in _METHODS:
        message = f"continues what another run has trained, which train.stage={train.stage} does not"
        yield Problem(KEY, train.start_from, message, f"Remove it, or set train.stage to {' or '.join(_METHODS)}.")
    elif trainer.trained(recipe).kind == "adapter" and not trainer.lora_settings(recipe):
        message = f"continues an adapter, which train.trainer={train.trainer} does not"
        yield Problem(KEY, train.start_from, message, "Set another trainer, or remove it.")
    elif recipe.cluster.address is None:
        yield from _found(recipe)


def _found(recipe: Recipe) -> Iterator[Problem]:
    try:
        start = start_of(recipe)
    except (RunnerError, OSError, ValueError, KeyError) as error:
        found = (
            error if isinstance(error, RunnerError) else RunnerError(f"cannot be read: {error}", "Name another run.")
        )
        yield Problem(KEY, recipe.train.start_from, found.message.removeprefix(f"{KEY} "), found.hint)
        return
    if start is not None:
        yield from differing(recipe, start)


def differing(recipe: Recipe, start: Start) -> Iterator[Problem]:
    """The keys that say of the weights what they are not. An adapter on a trained model would be served on the model
    that it was not trained on."""
    trainer = load_trainer(recipe)
    if (kind := trainer.trained(recipe).kind) != start.kind:
        message = f"names a run that has trained {_WHAT[start.kind]}, and {_WHAT[kind]} is trained"
        wanted = "full" if start.kind == "model" else "lora"
        yield Problem(KEY, recipe.train.start_from, message, f"Set train.args.finetuning_type={wanted}, or remove it.")
    if start.config is None or kind != start.kind:
        return
    settings = trainer.lora_settings(recipe)
    there = {name: start.config.get(name) for name in settings} | {_TARGET: start.target}
    for name, (key, own) in {**settings, _TARGET: (_TARGET, recipe.train.lora_target)}.items():
        if _plain(own) != _plain(there[name]):
            message = f"differs from the adapter of the run {recipe.train.start_from}, which has {there[name]!r}"
            yield Problem(key, own, message, f"Set {key}={json.dumps(there[name])}, or remove {KEY}.")


def _plain(value: Any) -> Any:
    """Names in one order, and nothing for what is not set or false."""
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",")]
    return sorted(value) if isinstance(value, list) else value or None


def require_start(ctx: RunContext[Recipe]) -> Start | None:
    """The start, whole and of this run's model. Raises RunnerError for another."""
    start = start_of(ctx.recipe)
    if start is None:
        return None
    run_id = str(ctx.recipe.train.start_from)
    whole(start.weights, run_id, KEY)
    if start.base != ctx.input("model").sha256:
        raise RunnerError(f"{KEY} names the run {run_id!r}, which trained on another base model", "Name another run.")
    for problem in differing(ctx.recipe, start):
        raise RunnerError(f"{problem.key}={problem.value} {problem.message}", problem.hint)
    return start
