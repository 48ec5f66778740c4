"""What a stage tells of a run that has ended: an outcome for the terminal, and its part of the report.

A stage that has something to tell has `outcome` or `page` (see `HasOutcome`, `HasPage`). Both read the manifest, the
recipe and files that are on this machine, and can be called at any time after the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from runner.pipeline.manifest import Manifest, StageRecord
from runner.storage.artifact import Artifact

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class FinishedRun:
    """A run as its manifest and recipe describe it. recipe: resolved values. folder: the run's own."""

    manifest: Manifest
    recipe: Mapping[str, Any]
    folder: Path

    def record(self, stage: str) -> StageRecord | None:
        """The stage's record, or None when it did not run."""
        return next((record for record in self.manifest.stages if record.name == stage), None)

    def metrics(self, stage: str) -> dict[str, Any]:
        """The figures of a stage that was successful, else none."""
        record = self.record(stage)
        return record.metrics if record and record.status in ("done", "skipped") else {}

    def on_this_machine(self, name: str) -> Artifact | None:
        """The artifact of that name when its files are below a folder of this machine, else None."""
        artifact = self.manifest.artifact(name)
        return artifact if artifact is not None and "://" not in artifact.uri else None

    def section(self, name: str) -> Mapping[str, Any]:
        """A section of the recipe, empty where there is none."""
        found = self.recipe.get(name)
        return found if isinstance(found, Mapping) else {}


@dataclass(frozen=True)
class Verdict:
    """What became of the run, in a title and a sentence."""

    kind: Literal["good", "bad", "plain"]
    title: str
    text: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a person wants to know at a run's end.

    lines: (label, text), such as ("endpoint", "http://..."). remarks: what to know before believing the verdict.
    """

    verdict: Verdict | None = None
    lines: Sequence[tuple[str, str]] = ()
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class Series:
    """One line of a chart. style: `smooth` draws every point faintly and their running mean, `points` marks each."""

    label: str
    points: Points
    style: Literal["plain", "smooth", "points"] = "plain"


@dataclass(frozen=True)
class Chart:
    """Lines over the same axis. named: a line is named also where it is the only one."""

    x: str
    series: Sequence[Series]
    named: bool = False


@dataclass(frozen=True)
class Card:
    """One figure with what it is and a remark."""

    what: str
    figure: str
    more: str = ""


@dataclass(frozen=True)
class Part:
    """A stage's part of a run's report. A page has the parts by `order`, then by pipeline.

    templates: folder with `page.html.j2` and `page.md.j2`, which are rendered with `facts` and, by name, the drawn
    `charts`; None: the part has only the rest. sections: (anchor, title) of the template's headings.
    settings: (label, value) for the top of the page. figures: numbers to follow from run to run, curves: lines to
    compare between runs, by name.
    """

    order: int = 50
    templates: Path | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    charts: Mapping[str, Chart] = field(default_factory=dict)
    sections: Sequence[tuple[str, str]] = ()
    settings: Sequence[tuple[str, str]] = ()
    cards: Sequence[Card] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Points] = field(default_factory=dict)


@runtime_checkable
class HasOutcome(Protocol):
    def outcome(self, run: FinishedRun) -> Outcome:
        """What a person wants to know of this stage at the run's end. Reads the records alone."""


@runtime_checkable
class HasPage(Protocol):
    def page(self, run: FinishedRun) -> Part:
        """The stage's part of the report. Files that are gone are left out."""
