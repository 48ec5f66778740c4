"""What a plan's stages will take: bytes, memory, steps and time, each with the basis it stands on.

A figure follows from the recipe and what it names, or from an earlier run under the same conditions. A time that has
not been measured follows from what the accelerator can do, and has a range. What none of this says is unknown, and the
reason is given. Stages make their own figures (`HasEstimate`).
"""

from __future__ import annotations

from runner.pipeline.estimates.figure import Estimate, HasEstimate, Known
from runner.pipeline.estimates.rates import plain_time
from runner.pipeline.plan import PastRuns, Plan
from runner.recipe.schema import Recipe

__all__ = ["Estimate", "estimate"]


def estimate(recipe: Recipe, plan: Plan, past: PastRuns) -> dict[str, list[Estimate]]:
    """Estimates by stage, for the stages that run. Reads small files of this machine; no network."""
    known = Known(recipe, past, {step.name: step for step in plan.steps})
    running = [step.stage for step in plan.steps if step.action == "run"]
    return {
        stage.name: list(stage.estimate(known)) if isinstance(stage, HasEstimate) else [plain_time(known, stage.name)]
        for stage in running
    }
