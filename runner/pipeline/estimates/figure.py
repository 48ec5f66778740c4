"""One figure of a stage, and what all of a plan's figures are made from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from runner.pipeline.estimates.rates import plain_seconds
from runner.pipeline.plan import PastRuns, Step
from runner.recipe.schema import Recipe
from stages.models.facts import ModelFacts, RowFacts

Unit = Literal["bytes", "steps", "rows", "s"]


@dataclass(frozen=True)
class Estimate:
    """One figure of a stage. value: None when it is not known; basis: what it stands on, or why it is not known.

    parts: what it is the sum of. most: the value is an upper bound.
    """

    what: str
    value: float | None
    unit: Unit
    basis: str
    parts: dict[str, int] = field(default_factory=dict)
    most: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Known:
    """What the estimates of one plan are made from."""

    recipe: Recipe
    past: PastRuns
    steps: dict[str, Step]
    model: ModelFacts
    rows: RowFacts

    def unknown(self, what: str, unit: Unit, why: str | None = None) -> Estimate:
        return Estimate(what, None, unit, why or self.model.basis)

    def time(self, found: tuple[float, str] | str) -> Estimate:
        if isinstance(found, str):
            return Estimate("time", None, "s", found)
        return Estimate("time", round(found[0], 1), "s", found[1])

    def plain_time(self, stage: str) -> Estimate:
        return self.time(plain_seconds(self.recipe, stage, self.past))

    def memory(self, what: str, parts: dict[str, int] | str, basis: str, *, most: bool = False) -> Estimate:
        if isinstance(parts, str):
            return self.unknown(what, "bytes", parts)
        return Estimate(what, sum(parts.values()), "bytes", basis, parts, most)
