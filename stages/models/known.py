"""What a plan knows of the model and the rows, and which keys the speed of its stages depends on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.pipeline.estimates.figure import Known
from runner.pipeline.estimates.rates import Conditions
from runner.pipeline.fingerprint import fingerprint_inputs, value_at
from runner.pipeline.manifest import StageRecord
from runner.pipeline.registry import load_stage
from runner.recipe.secrets import redact
from stages.models.facts import ModelFacts, RowFacts, model_facts, row_facts

MODEL = ("model.source", "model.revision")
ENGINE = (*MODEL, "infer.engine_kwargs", "train.lora_rank")
_ROWS = ("dataset.source", "dataset.prompt", "dataset.max_rows")


def known_model(known: Known) -> ModelFacts:
    """Facts of the base model, also from the newest ingest of the same one."""
    return known.once(_model)


def known_rows(known: Known) -> RowFacts:
    """Facts of the rows, also from the newest ingest of the same ones."""
    return known.once(_rows)


def _model(known: Known) -> ModelFacts:
    return model_facts(known.recipe, _ingested(known, "model."))


def _rows(known: Known) -> RowFacts:
    return row_facts(known.recipe, _ingested(known, "dataset."))


def _ingested(known: Known, section: str) -> StageRecord | None:
    """The newest record of an ingest that read the same values of the section."""
    now = redact(fingerprint_inputs(load_stage("ingest"), known.recipe, {}))["recipe"]
    for _, record in known.past.finished("ingest"):
        then = record.inputs.get("recipe", {})
        if all(then.get(key) == now[key] for key in now if key.startswith(section)):
            return record
    return None


def conditions(values: Mapping[str, Any], keys: tuple[str, ...], *more: Any) -> Conditions:
    """A speed that depends on the keys and on what `more` holds; the work are the rows."""
    speed = [*(value_at(values, key) for key in keys), *more]
    return Conditions(speed, [value_at(values, key) for key in _ROWS], "rows")
