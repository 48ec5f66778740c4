"""One figure of a stage, and what all of a plan's figures are made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

from runner.recipe.schema import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.pipeline.plan import PastRuns, Step

Unit = Literal["bytes", "steps", "rows", "s"]
Parts = dict[str, int]
Ways = Callable[[], Sequence[str]]
T = TypeVar("T")
R = TypeVar("R", bound=Recipe)


@dataclass(frozen=True)
class Estimate:
    """One figure of a stage. value: None when it is not known; basis: what it stands on, or why it is not known.

    parts: what it is the sum of. most: the value is an upper bound. low, high: between them the value surely is, None
    where it has been measured. limit: what there is of it, None where that is not known,
    and where. ways: what would keep the value
    within the limit.
    """

    what: str
    value: float | None
    unit: Unit
    basis: str
    parts: Parts = field(default_factory=dict)
    most: bool = False
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    where: str = ""
    ways: Sequence[str] = ()

    @property
    def fits(self) -> bool | None:
        """Whether it is within the limit; None where one of them is not known."""
        return None if self.value is None or self.limit is None else self.value <= self.limit

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"fits": self.fits}


def unknown(what: str, unit: Unit, why: str) -> Estimate:
    """A figure that is not known."""
    return Estimate(what, None, unit, why)


def memory(
    what: str,
    parts: Parts | str,
    basis: str,
    *,
    most: bool = False,
    limit: float | None = None,
    where: str = "",
    ways: Ways = list,
) -> Estimate:
    """Memory, part by part. parts: bytes, or why they are not known. ways: called where they are above the limit."""
    if isinstance(parts, str):
        return unknown(what, "bytes", parts)
    found = Estimate(what, sum(parts.values()), "bytes", basis, parts, most, limit=limit, where=where)
    return replace(found, ways=ways()) if found.fits is False else found


@dataclass(frozen=True)
class Computed:
    """Seconds that follow from what the accelerator can do. factor: by which they may be wrong, either way.

    most: an upper bound, because of what is not known of the work.
    """

    seconds: float
    basis: str
    factor: float = 2.0
    most: bool = False


def time(found: tuple[float, str] | Computed | str) -> Estimate:
    """How long the stage takes. found: measured seconds and their basis, computed ones, or why they are not known."""
    if isinstance(found, str):
        return unknown("time", "s", found)
    if isinstance(found, Computed):
        high = round(found.seconds * found.factor, 1)
        low = 0.0 if found.most else round(found.seconds / found.factor, 1)
        return Estimate("time", round(found.seconds, 1), "s", found.basis, most=found.most, low=low, high=high)
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
