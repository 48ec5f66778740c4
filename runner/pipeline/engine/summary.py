"""summary.json: what a program wants to know of a run, in one document."""

from __future__ import annotations

from typing import Any

from runner.pipeline.manifest import Manifest
from runner.pipeline.optional import HasSummary
from runner.pipeline.registry import concerned
from runner.recipe.schema import Recipe


def summarize(manifest: Manifest, recipe: Recipe) -> dict[str, Any]:
    """`{run_id, recipe, status, wall_s, stages, gate, artifacts, ...}`; times in seconds, sizes in bytes.

    gate: the verdict of the stage that has one, null without. Stages may add keys of their own (`HasSummary`), which
    hold their figures instead of `metrics` in `stages`.
    """
    records = {record.name: record for record in manifest.stages}
    summarizing = [stage for stage in concerned(recipe) if isinstance(stage, HasSummary)]
    own_keys = {stage.name: stage.summary(records.get(stage.name)) for stage in summarizing}
    summary = {
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
                "metrics": {} if record.name in own_keys else record.metrics,
                "origin_run": record.origin_run,
                "error": record.error,
            }
            for record in manifest.stages
        ],
        "gate": next((record.gate for record in manifest.stages if record.gate is not None), None),
        "artifacts": [artifact.summary() for record in manifest.stages for artifact in record.artifacts],
    }
    return {**{key: value for own in own_keys.values() for key, value in own.items()}, **summary}
