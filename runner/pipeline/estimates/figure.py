"""One figure of a stage, and what all of a plan's figures are made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

from runner.recipe.schema import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.pipeline.plan import PastRuns, Step

Unit = Literal["bytes", "steps", "rows", "s"]
Parts = dict[str, int]
T = TypeVar("T")
R = TypeVar("R", bound=Recipe)


@dataclass(frozen=True)
class Estimate:
    """One figure of a stage. value: None when it is not known; basis: what it stands on, or why it is not known.

    parts: what it is the sum of. most: the value is an upper bound.
    """

    what: str
    value: float | None
    unit: Unit
    basis: str
    parts: Parts = field(default_factory=dict)
    most: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def unknown(what: str, unit: Unit, why: str) -> Estimate:
    """A figure that is not known."""
    return Estimate(what, None, unit, why)


def memory(what: str, parts: Parts | str, basis: str, *, most: bool = False) -> Estimate:
    """Memory, part by part. parts: bytes, or why they are not known."""
    if isinstance(parts, str):
        return unknown(what, "bytes", parts)
    return Estimate(what, sum(parts.values()), "bytes", basis, parts, most)


def time(found: tuple[float, str] | str) -> Estimate:
    """How long the stage takes. found: seconds and their basis, or why they are not known."""
    if isinstance(found, str):
        return unknown("time", "s", found)
    return Estimate("time", round(found[0], 1), "s", found[1])


@dataclass(frozen=True)
class Known(Generic[R]):
    """What the estimates of one plan are made from. steps: the plan's, by stage."""

    recipe: R
    past: PastRuns
    steps: dict[str, Step]
    _found: dict[Any, Any] = field(default_factory=dict)

    def once(self, find: Callable[[Known[R]], T]) -> T:
        """What the function finds, which several stages ask for."""
        if find not in self._found:
            self._found[find] = find(self)
        found: T = self._found[find]
        return found


@runtime_checkable
class HasEstimate(Protocol):
    """A stage that says what it will take. Of one that does not the time is given, where it ran before."""

    def estimate(self, known: Known[Any]) -> Iterator[Estimate]:
        """Figures that follow from the recipe, the model, the rows or earlier runs. Reads small files; no network."""
