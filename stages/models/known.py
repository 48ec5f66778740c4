"""What a plan knows of the model, and which keys the speed of its stages depends on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.pipeline.estimates.figure import Known
from runner.pipeline.estimates.past import newest_record
from runner.pipeline.estimates.rates import Conditions
from runner.pipeline.fingerprint import value_at
from stages.models.facts import ModelFacts, model_facts
from stages.sections.recipe import Recipe

MODEL = ("model.source", "model.revision")
ENGINE = (*MODEL, "infer.engine_kwargs", "train.lora_rank")
_ROWS = ("dataset.source", "dataset.prompt", "dataset.max_rows")


def known_model(known: Known[Recipe]) -> ModelFacts:
    """Facts of the base model, also from the newest ingest of the same one."""
    return known.once(_model)


def _model(known: Known[Recipe]) -> ModelFacts:
    return model_facts(known.recipe, newest_record(known, "ingest", "model."))


def conditions(values: Mapping[str, Any], keys: tuple[str, ...], *more: Any) -> Conditions:
    """A speed that depends on the keys and on what `more` holds; the work are the rows."""
    speed = [*(value_at(values, key) for key in keys), *more]
    return Conditions(speed, [value_at(values, key) for key in _ROWS], "rows")
