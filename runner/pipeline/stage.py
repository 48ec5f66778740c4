"""What a stage is.

A stage in four steps: (1) write a class with the attributes of `Stage` and a `run`; (2) put what it hands to a library
into a pure function of the recipe, so that it can be tested without one; (3) name the class in `stages.BUILTIN`, or in
your package's entry point group `recipe_runner.stages`; (4) put its name into a recipe's `pipeline`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from runner.recipe.schema import Section
from runner.storage.artifact import Artifact

if TYPE_CHECKING:
    from runner.pipeline.context import RunContext
    from runner.recipe.schema import Recipe


def settings_model(stage: Any) -> type[Section] | None:
    """What describes the stage's own keys, or None. Raises TypeError when that is no Section."""
    model = getattr(stage, "settings", None)
    if model is None or (isinstance(model, type) and issubclass(model, Section)):
        return model
    raise TypeError(f"its settings are {model!r}, not a subclass of runner.recipe.schema.Section")


def settings_of(stage: Any, recipe: Recipe) -> Any:
    """The stage's own keys of the recipe, as its `settings`."""
    return stage.settings.model_validate(recipe.stages.get(stage.name, {}))


@dataclass(frozen=True)
class StageResult:
    """What a stage made: its artifacts, figures for the summary, and one line for the terminal."""

    artifacts: list[Artifact] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    note: str = ""


class Stage(Protocol):
    """A step of the pipeline.

    name: as in `pipeline`. version: raise it when the meaning of the output changes.
    reads: dotted recipe keys (or sections) that affect the result. libraries: distributions whose version does.
    provides: names of the artifacts it makes. ephemeral: its result lives only as long as the run (an endpoint), so it
    runs whenever a later stage that runs needs it, and is never taken from an earlier run.

    Four more attributes are optional. `canonical(recipe) -> dict` says, for some of `reads`, what stands in the
    fingerprint for the key's value: the content behind a path, or None where another key overrides it. `only_checks`
    names artifacts of `needs` that the stage looks at but makes nothing from. `settings`, a subclass of
    `Section`, describes the keys of another package's stage, which are under `stages.<name>` of the
    recipe: the stage reads them by `settings_of`, and they affect the result if `reads` names `stages.<name>`.
    `warm_up(ctx, beside) -> str` starts what takes long to start, if there is room for it beside the stage of that
    name, and returns what it has started, "" for nothing. It is called before each stage that runs before this one,
    until it has started something. Not all inputs are there by then, and `run` must do without it.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    reads: ClassVar[tuple[str, ...]]
    libraries: ClassVar[tuple[str, ...]]
    provides: ClassVar[tuple[str, ...]]
    ephemeral: ClassVar[bool]

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        """Names of the artifacts it takes, each made by an earlier stage of this run or an earlier one."""

    def run(self, ctx: RunContext) -> StageResult:
        """Do the work and return what was made. Raises RunnerError for what the user can mend."""
