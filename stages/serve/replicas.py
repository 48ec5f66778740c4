"""How many replicas there are from the start."""

from __future__ import annotations

from runner.recipe.arguments import RAY
from stages.sections.recipe import Recipe


def least_replicas(recipe: Recipe) -> int:
    """Replicas that must be there for the endpoint to start."""
    default: int = RAY.table("autoscaling")["min_replicas"]["default"]
    scaling = recipe.serve.autoscaling
    counts = [scaling.get("min_replicas", default), scaling.get("initial_replicas")]
    return max((count for count in counts if isinstance(count, int)), default=default)
