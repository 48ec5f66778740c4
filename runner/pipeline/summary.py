"""summary.json: what a program wants to know of a run, in one document."""

from __future__ import annotations

from typing import Any

from runner.pipeline.manifest import Manifest
from runner.recipe.schema import Recipe


def summarize(manifest: Manifest, recipe: Recipe) -> dict[str, Any]:
    """`{run_id, recipe, status, wall_s, stages, scores, gate, query, artifacts}`; times in seconds, sizes in bytes.

    scores: `{tuned: {exact_match, n, ...}, base: {...}}` of evaluate; query: figures of the query stage; both are
    empty when the stage did not run.
    """
    records = {record.name: record for record in manifest.stages}
    scores = dict(records["evaluate"].metrics) if "evaluate" in records else {}
    gate = scores.pop("gate", None)
    return {
        "run_id": manifest.run_id,
        "recipe": manifest.recipe,
        "status": manifest.status,
        "wall_s": round(sum(record.wall_s for record in manifest.stages), 3),
        "stages": [
            {
                "name": record.name,
                "status": record.status,
                "wall_s": round(record.wall_s, 3),
                "resources": record.resources or recipe.resources_of(record.name).model_dump(exclude_defaults=True),
                "metrics": record.metrics if record.name not in ("evaluate", "query") else {},
                "origin_run": record.origin_run,
                "error": record.error,
            }
            for record in manifest.stages
        ],
        "scores": scores,
        "gate": gate,
        "query": records["query"].metrics if "query" in records else {},
        "artifacts": [artifact.summary() for record in manifest.stages for artifact in record.artifacts],
    }
