"""What a stage is.

A stage in four steps: (1) write a class with the attributes of `Stage` and a `run`; (2) put what it hands to a library
into a pure function of the recipe, so that it can be tested without one; (3) name the class in the entry point group
`recipe_runner.stages` of your package (built-in ones stand in `runner.pipeline.registry`); (4) put its name into a
recipe's `pipeline`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from runner.storage.artifact import Artifact

if TYPE_CHECKING:
    from runner.pipeline.context import RunContext
    from runner.recipe.schema import Recipe


@dataclass(frozen=True)
class StageResult:
    """What a stage made: its artifacts, figures for the summary, and one line for the terminal.

    A figure `gate`, `{passed: bool, missed: [text]}`, is a verdict: where it has not passed, no later stage runs, and
    the run ends with the exit code of a refused gate.
    """

    artifacts: list[Artifact] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    note: str = ""


class Stage(Protocol):
    """A step of the pipeline.

    name: as in `pipeline`. version: raise it when the meaning of the output changes.
    reads: dotted recipe keys (or sections) that affect the result. libraries: distributions whose version does.
    provides: names of the artifacts it makes. ephemeral: its result lives only as long as the run (an endpoint), so it
    runs whenever a later stage that runs needs it, and is never taken from an earlier run.

    What a stage may have besides is a Protocol of its own in `runner.pipeline.optional`.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    reads: ClassVar[tuple[str, ...]]
    libraries: ClassVar[tuple[str, ...]]
    provides: ClassVar[tuple[str, ...]]
    ephemeral: ClassVar[bool]

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        """Names of the artifacts it takes, each made by an earlier stage of this run or an earlier one."""

    def run(self, ctx: RunContext[Any]) -> StageResult:
        """Do the work and return its outputs. Raises RunnerError for a failure that the user can correct."""
