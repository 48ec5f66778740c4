"""Arguments that exclude each other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from runner.errors import Problem
from runner.pipeline.optional import Rule
from stages.sections.recipe import Recipe

Get = Callable[[str], Any]
Argument = Callable[[Recipe, str], Any]  # the value that the library will use
_EVALUATES = ("steps", "epoch")
_OPTIM_ARGS = re.compile(r"\s*(\w+\s*=\s*[^,=\s]+\s*(,\s*|$))*")


@dataclass(frozen=True)
class Conflict:
    """Arguments that do not go together. `holds` is true when they clash; `key` is the one to name."""

    key: str
    holds: Callable[[Get], Any]
    message: str
    hint: str


# Of transformers' trainer, on which the trainers here build.
COMMON = (
    Conflict(
        "fp16", lambda get: get("fp16") and get("bf16"), "and bf16 exclude each other", "Set one of them to false."
    ),
    Conflict(
        "eval_strategy",
        lambda get: get("eval_strategy") in _EVALUATES and not get("eval_dataset") and not get("val_size"),
        "evaluates during training, but there is nothing to evaluate on",
        "Set train.args.eval_dataset=val, or train.args.val_size=0.1.",
    ),
    Conflict(
        "eval_on_start",
        lambda get: get("eval_on_start") and not get("eval_dataset") and not get("val_size"),
        "evaluates before training, but there is nothing to evaluate on",
        "Set train.args.eval_dataset=val, or train.args.val_size=0.1.",
    ),
    Conflict(
        "optim_args",
        lambda get: isinstance(get("optim_args"), str) and not _OPTIM_ARGS.fullmatch(get("optim_args")),
        "is not of the form name=value,name=value",
        "Write it as train.args.optim_args='name=value'.",
    ),
    Conflict(
        "debug",
        lambda get: get("debug") and not set(_words(get("debug"))) <= {"underflow_overflow"},
        "is not underflow_overflow, which is all that there is",
        "Remove it.",
    ),
    Conflict(
        "val_size",
        lambda get: get("eval_dataset") and get("val_size"),
        "and eval_dataset exclude each other",
        "Remove one of them.",
    ),
    Conflict(
        "load_best_model_at_end",
        lambda get: (
            get("load_best_model_at_end")
            and get("save_strategy") != "best"
            and get("eval_strategy") != get("save_strategy")
        ),
        "needs eval_strategy and save_strategy to be the same",
        "Set train.args.eval_strategy and train.args.save_strategy both to steps, or both to epoch.",
    ),
)
WITH_EVALUATION = ("reduce_lr_on_plateau", "greedy")
_WITH_A_LEAST_RATE = ("cosine_with_min_lr", "cosine_warmup_with_min_lr")


def schedulers(key: str) -> tuple[Conflict, ...]:
    """Of the scheduler of the learning rate. key: the trainer's name of it."""
    return (
        Conflict(
            key,
            lambda get: get(key) == "constant" and (get("warmup_steps") or get("warmup_ratio")),
            "has no warm-up, and warmup_steps or warmup_ratio asks for one",
            f"Set train.args.{key}=constant_with_warmup.",
        ),
        Conflict(
            key,
            lambda get: get(key) in WITH_EVALUATION and get("eval_strategy") not in _EVALUATES,
            "follows the loss of an evaluation, and there is none during training",
            "Set train.args.eval_strategy=steps and train.args.val_size=0.1.",
        ),
        Conflict(
            key,
            lambda get: get(key) in _WITH_A_LEAST_RATE and not _has(get, "min_lr", "min_lr_rate"),
            "needs the least learning rate",
            "Set train.args.lr_scheduler_kwargs={min_lr_rate: 0.1}.",
        ),
        Conflict(
            key,
            lambda get: get(key) == "warmup_stable_decay" and not _has(get, "num_decay_steps"),
            "needs the number of steps at the end in which the rate falls",
            "Set train.args.lr_scheduler_kwargs={num_decay_steps: 100}.",
        ),
    )


def _has(get: Get, *names: str) -> bool:
    given = get("lr_scheduler_kwargs")
    return not isinstance(given, dict | None) or any((given or {}).get(name) is not None for name in names)


# Of trainers that learn the answers of a conversation.
HISTORY_OR_PROMPT = Conflict(
    "mask_history",
    lambda get: get("mask_history") and get("train_on_prompt"),
    "and train_on_prompt exclude each other",
    "Set one of them to false.",
)


def _words(value: Any) -> list[str]:
    """Of a text or a list; what is neither is refused by its kind."""
    return value.split() if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else []


def only_with_lora(name: str) -> Conflict:
    """An argument of adapters, set where none is trained."""
    return Conflict(
        name,
        lambda get: get(name) and get("finetuning_type") != "lora",
        "goes with finetuning_type=lora only",
        "Remove it, or set train.args.finetuning_type=lora.",
    )


def agreement(conflicts: Sequence[Conflict], argument: Argument) -> Rule:
    """The rule that none of the conflicts holds. argument: of the trainer."""
    return partial(_arguments_agree, conflicts, argument)


def _arguments_agree(conflicts: Sequence[Conflict], argument: Argument, recipe: Recipe) -> Iterator[Problem]:
    for conflict in conflicts:
        if conflict.holds(lambda name: argument(recipe, name)):
            value = argument(recipe, conflict.key)
            yield Problem(f"train.args.{conflict.key}", value, conflict.message, conflict.hint)
