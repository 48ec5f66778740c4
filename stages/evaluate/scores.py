"""What was measured of the predictions, and the gate's verdict of it: the content of scores.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runner.errors import RunnerError
from runner.recipe.comparison import HOW_TO_WRITE, parse_comparison
from runner.storage.artifact import Artifact
from stages.data.prediction import BASE, TUNED

DELTA_VS_BASE, DELTA_VS_RUN = "delta_vs_base", "delta_vs_run"
SCORES_FILE = "scores.json"
# How the scores are to be read; it stands in scores.json and in the report.
DENOMINATOR = "all test rows: a row that the engine refused counts as wrong"


@dataclass(frozen=True)
class Verdict:
    """Whether every requirement of `evaluate.require` holds; missed: a sentence for each that does not."""

    passed: bool
    missed: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """`{passed, missed}`."""
        return {"passed": self.passed, "missed": list(self.missed)}


@dataclass(frozen=True)
class Scores:
    """variants: name -> `{n, num_errors, num_wrong, <metric>, <metric>_ci, ...}`. metrics: their names, the first one
    first. deltas: `delta_vs_base` and `delta_vs_run`, as far as they were measured. slices: name -> value -> variant.
    adapter_sha256: of the adapter that predicted, None for the base model alone.
    """

    variants: dict[str, dict[str, Any]]
    metrics: list[str]
    confidence: float
    deltas: dict[str, dict[str, Any]] = field(default_factory=dict)
    slices: dict[str, Any] = field(default_factory=dict)
    adapter_sha256: str | None = None
    verdict: Verdict = field(default=Verdict(True))

    @property
    def main(self) -> dict[str, Any]:
        """The adapter's scores; the base model's where there is no adapter."""
        return self.variants.get(TUNED) or self.variants[BASE]

    def as_dict(self) -> dict[str, Any]:
        """The content of scores.json."""
        return {
            **self.variants,
            "metrics": self.metrics,
            "denominator": DENOMINATOR,
            "confidence": self.confidence,
            **self.deltas,
            "slices": self.slices,
            "adapter_sha256": self.adapter_sha256,
            "gate": self.verdict.as_dict(),
        }

    @classmethod
    def read(cls, artifact: Artifact) -> Scores:
        """The scores that an evaluate stage has made. Raises RunnerError when they are of an earlier version."""
        path = artifact.path / SCORES_FILE
        values = json.loads(path.read_text(encoding="utf-8"))
        try:
            gate = values["gate"]
            return cls(
                variants={name: values[name] for name in (TUNED, BASE) if name in values},
                metrics=values["metrics"],
                confidence=values["confidence"],
                deltas={name: values[name] for name in (DELTA_VS_BASE, DELTA_VS_RUN) if name in values},
                slices=values["slices"],
                adapter_sha256=values["adapter_sha256"],
                verdict=Verdict(gate["passed"], tuple(gate["missed"])),
            )
        except KeyError as error:
            raise RunnerError(
                f"{path} has no {error}: another version of the runner made it", "Evaluate again: `force=[evaluate]`."
            ) from error


def judge(require: Mapping[str, str], scores: Mapping[str, Any]) -> Verdict:
    """What of `evaluate.require` does not hold. What was not measured does not hold.

    scores: as of scores.json. Raises RunnerError for a requirement that is not a comparison (the recipe's checks have
    refused it before).
    """
    missed = []
    for name, text in require.items():
        comparison = parse_comparison(text)
        if comparison is None:
            raise RunnerError(f"evaluate.require.{name}={text!r} is not a comparison", HOW_TO_WRITE)
        value = measured(name, scores)
        if value is None:
            missed.append(f"{name} was not measured; {comparison} is required")
        elif not comparison.holds(value):
            off = abs(value - comparison.limit)
            missed.append(f"{name} is {value:.4g}; {comparison} is required (off by {off:.4g})")
    return Verdict(not missed, tuple(missed))


def measured(name: str, scores: Mapping[str, Any]) -> float | None:
    """The figure that a requirement names, or None when there is none.

    A metric's name means the adapter's (the base model's when there is no adapter), `base.<metric>` the base model's,
    `delta_vs_base` the difference of exact match, `delta_vs_base.<metric>` that of another metric; so `delta_vs_run`.
    """
    section, _, metric = name.partition(".")
    if section in (DELTA_VS_BASE, DELTA_VS_RUN):
        found = scores.get(section, {}).get(metric or "exact_match")
    elif section == BASE and metric:
        found = scores.get(BASE, {}).get(metric)
    else:
        found = (scores.get(TUNED) or scores.get(BASE) or {}).get(name)
    return None if found is None else float(found)
