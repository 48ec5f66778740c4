"""What publish will upload."""

from __future__ import annotations

from collections.abc import Iterator

from runner.pipeline.estimates.figure import Estimate, Known, unknown
from runner.pipeline.estimates.rates import plain_time
from stages.publish.stage import publish_plan
from stages.sections.recipe import Recipe
from stages.trainers.base import load_trainer


def estimate(known: Known[Recipe]) -> Iterator[Estimate]:
    """Bytes to upload: of the training that is reused, else of the adapter to come."""
    step, where = known.steps.get("train"), f"to {known.recipe.storage.artifacts}"
    record = step.record if step else None
    made = {artifact.name: artifact for artifact in record.artifacts} if record else {}
    if record is not None and {"trained_weights", "training_log"} <= set(made):
        sets = publish_plan(known.recipe, made["trained_weights"], made["training_log"])
        size = sum(each.artifact.size_bytes for each in sets)
        yield Estimate("upload", size, "bytes", f"the files of run {record.origin_run}, {where}")
    else:
        found = load_trainer(known.recipe).adapter_bytes(known)
        if isinstance(found, str):
            yield unknown("upload", "bytes", found)
        else:
            yield Estimate("upload", found[0], "bytes", f"{found[1]}, {where}")
    yield plain_time(known, "publish")
