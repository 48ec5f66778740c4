"""Network addresses of a recipe when a run begins: which content lies behind them, and whether they take results."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from runner.errors import RunnerError, UsageError
from runner.pipeline.optional import LooksOutside, WritesOutside
from runner.pipeline.stage import Stage
from runner.recipe.schema import Recipe

_NUM_PARALLEL = 8
Seen = dict[str, dict[str, Any]]
"""Stage -> key of the recipe -> tag of what lies behind its address."""


def look_outside(stages: Iterable[Stage], recipe: Recipe, say: Callable[[str], None]) -> Seen:
    """The tags that the stages ask for. `say` names one that cannot be had, which counts as it was seen last."""
    asked = [
        (stage.name, key, look)
        for stage in stages
        if isinstance(stage, LooksOutside)
        for key, look in stage.outside(recipe).items()
    ]
    seen: Seen = {}
    with ThreadPoolExecutor(_NUM_PARALLEL) as pool:
        looks = [(name, key, pool.submit(look)) for name, key, look in asked]
        for name, key, future in looks:
            try:
                seen.setdefault(name, {})[key] = future.result()
            except (RunnerError, OSError) as error:
                message = error.message if isinstance(error, RunnerError) else str(error)
                say(f"{key}: whether its content has changed cannot be seen, and it counts as unchanged: {message}")
    return seen


def check_destinations(stages: Iterable[Stage], recipe: Recipe) -> None:
    """Raise UsageError naming the key when a place that one of the stages will write to, or listen at, is not free."""
    checks = {
        key: check
        for stage in stages
        if isinstance(stage, WritesOutside)
        for key, check in stage.destinations(recipe).items()
    }
    with ThreadPoolExecutor(_NUM_PARALLEL) as pool:
        for key, future in [(key, pool.submit(check)) for key, check in checks.items()]:
            try:
                future.result()
            except RunnerError as error:
                own = error.message.startswith(f"{key}=")
                message = (
                    error.message if own else f"{key}, where results are to be written, takes none: {error.message}"
                )
                raise UsageError(message, error.hint.replace("storage.root", key)) from error
