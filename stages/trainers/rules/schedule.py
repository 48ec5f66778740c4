"""Rules about when training logs, evaluates and saves.

Transformers states most of these after the workers have started, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from runner.errors import Problem, nearest
from runner.pipeline.optional import Rule
from stages.models.architecture import linear_shapes
from stages.models.facts import figures
from stages.sections.model import Architecture
from stages.sections.recipe import Recipe
from stages.trainers.rules.conflicts import Argument

_OTHER_MODULES = ("embed_tokens", "lm_head")
_STEPS = ("logging_steps", "eval_steps", "save_steps", "warmup_steps")


def _steps_are_whole_or_a_share(argument: Argument, recipe: Recipe) -> Iterator[Problem]:
    """Below 1 a number of steps is a share of all steps."""
    for name in _STEPS:
        value = argument(recipe, name)
        if _is_number(value) and value > 1 and value != int(value):
            message = "must be a whole number of steps, or a share of all steps below 1"
            yield Problem(f"train.args.{name}", value, message, f"Set train.args.{name}={int(value)}.")


def _validation_size_is_rows_or_a_share(argument: Argument, recipe: Recipe) -> Iterator[Problem]:
    value = argument(recipe, "val_size")
    if not _is_number(value) or value < 0:
        return
    if (value > 1 and value != int(value)) or (value == 1 and isinstance(value, float)):
        message = "must be a share of the training rows >= 0 and < 1, or a whole number of rows"
        yield Problem("train.args.val_size", value, message, "Set train.args.val_size=0.1 to hold out 10 %.")
    elif 0 < value < 1 and argument(recipe, "streaming"):
        message = "must be a whole number of rows with streaming, because the number of all rows is not known"
        yield Problem("train.args.val_size", value, message, "Set train.args.val_size=100.")


def _evaluation_has_a_strategy(argument: Argument, recipe: Recipe) -> Iterator[Problem]:
    strategy = argument(recipe, "eval_strategy")
    given: Any = recipe.train.args.get("eval_steps")
    if _is_number(given) and given > 0 and strategy != "steps":
        hint = "Set train.args.eval_strategy=steps, or remove it."
        yield Problem("train.args.eval_steps", given, f"has no effect: eval_strategy is {strategy}", hint)


def _best_model_was_saved(argument: Argument, recipe: Recipe) -> Iterator[Problem]:
    """What is evaluated must be what is saved, or the best model is nowhere. Transformers wants the same."""
    if not argument(recipe, "load_best_model_at_end") or argument(recipe, "save_strategy") != "steps":
        return
    save, every = argument(recipe, "save_steps"), argument(recipe, "eval_steps") or argument(recipe, "logging_steps")
    if argument(recipe, "eval_strategy") != "steps" or not (_is_number(save) and _is_number(every)) or every <= 0:
        return
    key = "train.args.save_steps"
    if (save < 1) != (every < 1):
        message = f"and eval_steps={every:g} must both be numbers of steps, or both shares of all steps"
        yield Problem(key, save, f"{message}, with load_best_model_at_end", f"Set {key} to a multiple of eval_steps.")
    elif abs(save / every - round(save / every)) > 1e-6 or save < every:
        message = f"must be a multiple of eval_steps={every:g} with load_best_model_at_end"
        yield Problem(key, save, message, f"Set {key}={max(1, round(save / every)) * every:g}.")


def _warmup_is_given_once(argument: Argument, recipe: Recipe) -> Iterator[Problem]:
    """Trainers use one of the two, and not all the same one."""
    ratio, steps = argument(recipe, "warmup_ratio"), argument(recipe, "warmup_steps")
    if ratio and steps:
        message = f"and warmup_steps={steps} exclude each other"
        yield Problem("train.args.warmup_ratio", ratio, message, "Remove one of them, or set it to null or 0.")


def _warmup_ends(argument: Argument, recipe: Recipe) -> Iterator[Problem]:
    """As far as the recipe says how many steps there are; else a worker finds it (`worker.callback`)."""
    warmup, steps = argument(recipe, "warmup_steps"), argument(recipe, "max_steps")
    if _is_number(warmup) and _is_number(steps) and 0 < steps < warmup:
        message = f"is more than max_steps={steps:g}: the learning rate would never be train.learning_rate"
        yield Problem("train.args.warmup_steps", warmup, message, "Lower it, or set train.args.max_steps higher.")


def _nothing_is_saved(argument: Argument, recipe: Recipe) -> Iterator[Problem]:
    strategy, every_s = argument(recipe, "save_strategy"), recipe.train.checkpoints.every_s
    if strategy == "no" and every_s > 0:
        message = f"saves no checkpoint, and train.checkpoints.every_s={every_s:g} saves one every {every_s:g} s"
        hint = "Set train.checkpoints.every_s=0 as well, or leave train.args.save_strategy out."
        yield Problem("train.args.save_strategy", strategy, message, hint)


def targets_are_modules(recipe: Recipe) -> Iterator[Problem]:
    names = [name.strip() for name in recipe.train.lora_target.split(",")]
    key, value = "train.lora_target", recipe.train.lora_target
    if "" in names:
        yield Problem(key, value, "has an empty name in it", "Write train.lora_target=[q_proj,v_proj], or all.")
    elif "all" in names and len(names) > 1:
        yield Problem(key, value, "names all linear modules and others besides", "Set it to all, or remove all.")
    elif names != ["all"] and (known := figures(recipe)) is not None:
        yield from _modules_are_there(names, value, known[0])


def _modules_are_there(names: list[str], value: str, model: Architecture) -> Iterator[Problem]:
    """PEFT leaves out a module that is not there as long as another one is."""
    known = [*linear_shapes(model), *_OTHER_MODULES]
    if missing := [name for name in names if name.rpartition(".")[2] not in known]:
        message = f"names {missing[0]}, which a {model.model_type} model does not have; there are: {', '.join(known)}"
        guess = nearest(missing[0], known)
        yield Problem("train.lora_target", value, message, f"Did you mean {guess}?" if guess else "Set it to all.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def schedule_rules(argument: Argument) -> tuple[Rule, ...]:
    """The rules, for the arguments of a trainer."""
    found = (
        _steps_are_whole_or_a_share,
        _validation_size_is_rows_or_a_share,
        _evaluation_has_a_strategy,
        _best_model_was_saved,
        _warmup_is_given_once,
        _warmup_ends,
        _nothing_is_saved,
    )
    return (*(partial(rule, argument) for rule in found), targets_are_modules)
