"""What finished runs tell an estimate."""

from __future__ import annotations

from typing import Any

from runner.pipeline.estimates.figure import Known
from runner.pipeline.fingerprint import fingerprint_inputs
from runner.pipeline.manifest import StageRecord
from runner.pipeline.registry import load_stage
from runner.recipe.secrets import redact


def newest_record(known: Known[Any], stage: str, section: str) -> StageRecord | None:
    """The stage's newest record that read the same values of the section, such as "model."."""
    now = redact(fingerprint_inputs(load_stage(stage), known.recipe, {}))["recipe"]
    for _, record in known.past.finished(stage):
        then = record.inputs.get("recipe", {})
        if all(then.get(key) == now[key] for key in now if key.startswith(section)):
            return record
    return None
