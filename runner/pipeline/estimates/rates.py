"""How long a stage took before, under the same conditions: the only ground on which a time is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from runner.errors import RunnerError
from runner.pipeline.estimates.figure import Estimate, Known, time
from runner.pipeline.fingerprint import value_at
from runner.pipeline.manifest import StageRecord
from runner.pipeline.plan import PastRun
from runner.pipeline.registry import load_stage
from runner.recipe.machine import machine_name
from runner.recipe.secrets import redact
from runner.storage.atomic import read_state

_NOT_OF_SPEED = ("dashboard", "resources")  # keys of `cluster`


@dataclass(frozen=True)
class Conditions:
    """What the speed of a stage depends on, besides the cluster and the stage's resources.

    speed: a rate that was measured holds while this is the same. work: what there is to do; with other work a rate
    holds too, and is called so. work_name: what that is, in a word.
    """

    speed: Any
    work: Any = None
    work_name: str = "inputs"


@runtime_checkable
class HasConditions(Protocol):
    """A stage that says what its speed depends on. Of one that does not it is every key of `reads`."""

    def conditions(self, values: Mapping[str, Any]) -> Conditions:
        """values: a recipe's as plain values, perhaps of an earlier run."""


@dataclass(frozen=True)
class Measured:
    """A stage's newest record under the same conditions. other: what of the work was not the same, "" for nothing."""

    record: StageRecord
    run_id: str
    other: str

    @property
    def basis(self) -> str:
        return f"run {self.run_id}" + (f" on other {self.other}" if self.other else "")


def measured(known: Known[Any], stage: str) -> Measured | None:
    """The newest run of the stage on this cluster, with these resources and what else sets its speed."""
    now = redact(known.recipe.model_dump(mode="json"))
    conditions = _conditions(stage, now)
    for run, record in known.past.finished(stage):
        then = _recipe_of(run)
        if record.status != "done" or then is None or not _same_place(now, then, run, stage):
            continue
        before = _conditions(stage, then)
        if before.speed == conditions.speed:
            other = "" if before.work == conditions.work else conditions.work_name
            return Measured(record, run.manifest.run_id, other)
    return None


def _conditions(name: str, values: Mapping[str, Any]) -> Conditions:
    stage = load_stage(name)
    if isinstance(stage, HasConditions):
        return stage.conditions(values)
    return Conditions([value_at(values, key) for key in stage.reads])


def _recipe_of(run: PastRun) -> dict[str, Any] | None:
    try:
        return read_state(run.folder / "recipe.json")
    except (OSError, RunnerError):
        return None  # what cannot be compared gives no rate


def _same_place(now: dict[str, Any], then: dict[str, Any], run: PastRun, stage: str) -> bool:
    compared = [f"cluster.{key}" for key in now["cluster"] if key not in _NOT_OF_SPEED]
    if any(value_at(now, key) != value_at(then, key) for key in compared):
        return False
    if value_at(now, f"resources.{stage}") != value_at(then, f"resources.{stage}"):
        return False
    return now["cluster"]["address"] is not None or run.manifest.machine == machine_name()


def plain_time(known: Known[Any], stage: str) -> Estimate:
    """The time that the stage took when it last ran, and in which run; or why that is not known."""
    found = measured(known, stage)
    return time((found.record.wall_s, f"as in {found.basis}") if found else never_ran(stage))


def never_ran(stage: str) -> str:
    """Why a time is not known."""
    return f"no finished {stage} in storage.root with this model and these settings on this cluster"
