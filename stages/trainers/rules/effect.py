"""Arguments that do nothing by themselves: each needs another argument, or a method, or is not used here at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from runner.errors import Problem
from runner.pipeline.optional import Rule
from runner.recipe.arguments import Library
from stages.sections.recipe import Recipe
from stages.trainers.rules.conflicts import WITH_EVALUATION, Argument, Get


@dataclass(frozen=True)
class Effect:
    """Arguments, and whether they count. wanted: a clause after "has no effect: ". hint: how they would."""

    names: tuple[str, ...]
    holds: Callable[[Recipe, Get], Any]
    wanted: str
    hint: str = ""


def with_argument(name: str, *names: str) -> Effect:
    """Arguments that only count where another one is switched on."""
    return Effect(names, lambda _, get: get(name), f"it goes with {name}", f"set train.args.{name}")


def with_value(name: str, values: Sequence[str], *names: str) -> Effect:
    """Arguments that only count where another one has one of these values."""
    shown = " or ".join(values)
    return Effect(
        names, lambda _, get: get(name) in values, f"it goes with {name}={shown}", f"set train.args.{name}={values[0]}"
    )


def with_stage(stages: Sequence[str], *names: str) -> Effect:
    """Arguments of some methods of training."""
    shown = " or ".join(stages)
    return Effect(
        names, lambda recipe, _: recipe.train.stage in stages, f"it goes with train.stage={shown}",
        f"set train.stage={stages[0]}",
    )  # fmt: skip


def never(why: str, *names: str) -> Effect:
    """Arguments that training here does not use."""
    return Effect(names, lambda _, __: False, why)


def evaluates(get: Get) -> bool:
    """Whether there is an evaluation during training."""
    return get("eval_strategy") not in (None, "no")


def chooses_the_best(get: Get) -> Any:
    """Whether one of the evaluated models is chosen."""
    return get("load_best_model_at_end") or get("save_strategy") == "best" or get("early_stopping_steps")


_OPTIMIZERS_OF_MODULES = ("galore", "apollo")


def common(scheduler: str) -> tuple[Effect, ...]:
    """Of transformers' trainer. scheduler: the trainer's name of the learning rate's scheduler."""
    return (
        Effect(
            ("optim_target_modules",),
            lambda _, get: any(name in str(get("optim")) for name in _OPTIMIZERS_OF_MODULES),
            "it goes with the optimizers of GaLore and APOLLO",
        ),
        with_argument("dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_persistent_workers"),
        Effect(
            ("greater_is_better",), lambda _, get: chooses_the_best(get), "no model is chosen as the best",
            "set train.args.load_best_model_at_end=true",
        ),
        Effect(
            ("metric_for_best_model",),
            lambda _, get: chooses_the_best(get) or get(scheduler) in WITH_EVALUATION,
            "no model is chosen as the best",
            "set train.args.load_best_model_at_end=true",
        ),
        Effect(
            ("eval_delay", "eval_accumulation_steps"),
            lambda _, get: evaluates(get),
            "there is no evaluation during training",
            "set train.args.eval_strategy",
        ),
    )  # fmt: skip


def arguments_have_an_effect(library: Library, argument: Argument, effects: Sequence[Effect]) -> Rule:
    """The rule that each argument which the recipe gives another value than the library's own counts."""
    return partial(_have_an_effect, library, argument, effects)


def _have_an_effect(
    library: Library, argument: Argument, effects: Sequence[Effect], recipe: Recipe
) -> Iterator[Problem]:
    if "train" not in recipe.pipeline:
        return
    table, given = library.table("arguments"), recipe.train.args
    for effect in effects:
        for name in effect.names:
            value = given.get(name)
            if name not in table or value in (None, table[name].get("default"), False, "", 0):
                continue
            if not effect.holds(recipe, lambda other: argument(recipe, other)):
                hint = f"Remove it, or {effect.hint}." if effect.hint else "Remove it."
                yield Problem(f"train.args.{name}", value, f"has no effect: {effect.wanted}", hint)
