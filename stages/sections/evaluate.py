"""Scores and the gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from runner.recipe.schema import PassThrough, Section


class Evaluate(Section):
    """Scores of the predictions, and the gate they must pass."""

    other_names: ClassVar[Mapping[str, str]] = {
        "gate": "require",
        "threshold": "require",
        "thresholds": "require",
        "min": "require",
        "metric": "metrics",
    }

    metrics: list[str] = Field(
        ["exact_match", "exact_match_normalized"],
        description="Metrics to compute: exact_match, exact_match_normalized; of meaning representations such as "
        "f(a[x], b[y]): exact_match_unordered, parse_rate, function_accuracy, attribute_precision, attribute_recall, "
        "attribute_f1; of tool calls: calls_match, call_decision, call_names, call_arguments, call_order; of text: "
        "rouge, bleu, regex, json_schema; and those that packages add.",
        min_length=1,
    )
    metric_args: dict[str, PassThrough] = Field(
        default_factory=dict,
        description="Keyword arguments of a metric, by its name.",
        examples=[{"regex": {"pattern": "yes|no"}, "rouge": {"kind": "rouge1"}, "json_schema": {"schema": {}}}],
    )
    slices: list[str] = Field(
        default_factory=list,
        description="Score parts of the test set by themselves: by `function` (of the reference), `length` (quarters "
        "by the reference's length), or any column of the rows.",
        examples=[["function", "length", "category"]],
    )
    reasoning: Literal["strip", "keep"] = Field(
        "strip",
        description="Whether an answer is scored without its reasoning (all up to </think>), or with it.",
    )
    compare_base: bool = Field(True, description="Also predict with the base model and score it next to the adapter.")
    compare_run: str | None = Field(
        None,
        description="Id of another run, to test the difference to its predictions row by row (`delta_vs_run`).",
        examples=["20261123-155013-4c3399"],
    )
    require: dict[str, str] = Field(
        default_factory=dict,
        description="Gate: metric -> comparison that must hold before anything is served. `base.<metric>` is the base "
        "model's, `delta_vs_base` the difference of exact match, `delta_vs_base.<metric>` of another metric.",
        examples=[{"exact_match": ">=0.60", "delta_vs_base": ">=0.40"}],
    )
    objective: str = Field("exact_match", description="Metric that a run returns to a Hydra sweeper.")
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(0.95, description="Level of the confidence intervals.")
