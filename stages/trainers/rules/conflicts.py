"""Arguments that exclude each other."""

from __future__ import annotations

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
# Of trainers that learn the answers of a conversation.
HISTORY_OR_PROMPT = Conflict(
    "mask_history",
    lambda get: get("mask_history") and get("train_on_prompt"),
    "and train_on_prompt exclude each other",
    "Set one of them to false.",
)


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
