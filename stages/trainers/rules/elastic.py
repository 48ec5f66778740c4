"""Rules about a number of workers that changes while they train (`resources.train.num_workers` as a range)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import lcm

from runner.errors import Problem
from runner.pipeline.optional import Rule
from runner.recipe.arguments import Library, all_accepted
from runner.recipe.schema import WorkerRange
from stages.sections.recipe import Recipe
from stages.trainers.memory import Setup
from stages.trainers.rules.conflicts import Argument

_KEY = "resources.train.num_workers"
_MOST_GATHERED = 100_000


def number_of_workers_may_change(
    library: Library, setup_of: Callable[[Recipe], Setup], argument: Argument, sharding: tuple[str, ...]
) -> Rule:
    """The rule that a step learns from as many rows with any number of workers, and that each has the whole model.

    library: whose arguments `setup_of` reads. sharding: arguments that spread a model over the workers.
    """
    return partial(_may_change, library, setup_of, argument, sharding)


def _may_change(
    library: Library,
    setup_of: Callable[[Recipe], Setup],
    argument: Argument,
    sharding: tuple[str, ...],
    recipe: Recipe,
) -> Iterator[Problem]:
    workers = recipe.resources_of("train").num_workers
    if isinstance(workers, int) or "train" not in recipe.pipeline:
        return
    for name in sharding:
        if argument(recipe, name):
            message = "spreads the model over a number of workers that cannot change, and resources gives a range"
            yield Problem(f"train.args.{name}", argument(recipe, name), message, f"Set {_KEY} to a number.")
    if not all_accepted(library.table("arguments"), recipe.train.args):
        return
    setup = setup_of(recipe)
    together = setup.gather * workers.max
    uneven = next((number for number in range(workers.min, workers.max + 1) if together % number), None)
    if uneven:
        key = setup.names["gather"]
        message = f"{workers.max} x {key}={setup.gather} batches of a step cannot be shared evenly by {uneven} workers"
        gather = _gather(workers)
        hint = f"Set {key} to a multiple of {gather}." if gather <= _MOST_GATHERED else "Set a smaller range."
        yield Problem(_KEY, _value(workers), message, hint)


def _gather(workers: WorkerRange) -> int:
    """The least number of batches gathered by each of all workers that any number of them can share."""
    return lcm(*range(workers.min, workers.max + 1)) // workers.max


def number_of_workers_is_fixed(trainer: str) -> Rule:
    """The rule of a trainer that cannot continue with another number of workers."""
    return partial(_is_fixed, trainer)


def _is_fixed(trainer: str, recipe: Recipe) -> Iterator[Problem]:
    workers = recipe.resources_of("train").num_workers
    if not isinstance(workers, int) and "train" in recipe.pipeline:
        message = f"is a range, and train.trainer={trainer} does not continue with another number of workers"
        yield Problem(_KEY, _value(workers), message, "Set a number, or another trainer.")


def _value(workers: WorkerRange) -> dict[str, int]:
    return {"min": workers.min, "max": workers.max}
