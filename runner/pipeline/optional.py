"""What a stage may do besides `Stage`: each a Protocol that the pipeline looks for by `isinstance`.

A stage of another package gets the same as a built-in one by having the same attribute or method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from runner.cluster.environments import Chosen
from runner.errors import Problem
from runner.recipe.schema import Section

if TYPE_CHECKING:
    from runner.pipeline.context import RunContext
    from runner.pipeline.manifest import StageRecord
    from runner.recipe.arguments.mapped import Mapped
    from runner.recipe.schema import Recipe
    from runner.storage.artifact import Artifact

Rule = Callable[[Any], Iterator[Problem]]  # of the recipe, which has the sections of the stages


@runtime_checkable
class HasCanonical(Protocol):
    def canonical(self, recipe: Recipe) -> dict[str, Any]:
        """What stands in the fingerprint for the values of some keys of `reads`: the content behind a path, or None
        where another key overrides the value."""


@runtime_checkable
class LooksOutside(Protocol):
    def outside(self, recipe: Recipe) -> Mapping[str, Callable[[], Any]]:
        """How to see over the network which content lies behind addresses: key of the recipe -> a function that returns
        a tag of the content, None where the other side has none, or raises RunnerError when it gets no answer. A run
        calls them once, in threads; a plan does not, and takes the content for what it was last."""


@runtime_checkable
class WritesOutside(Protocol):
    def destinations(self, recipe: Recipe) -> Mapping[str, Callable[[], object]]:
        """Where the stage will write besides the run's folder, and listen: key of the recipe -> a function that raises
        RunnerError when it cannot. A run calls those of the stages that will run before its first stage."""


@runtime_checkable
class OnlyChecks(Protocol):
    """only_checks: artifacts of `needs` that the stage looks at but makes nothing from."""

    only_checks: ClassVar[tuple[str, ...]]


@runtime_checkable
class ChoosesLibraries(Protocol):
    def libraries_of(self, recipe: Recipe) -> Sequence[str]:
        """Distributions besides `libraries` whose versions affect the result of this recipe."""


@runtime_checkable
class RunsIn(Protocol):
    def environment(self, recipe: Recipe) -> Chosen | None:
        """The environment of the stage's workers where that is not the runner's own; its `libraries` are those of that
        environment then. `RunContext.resources` has its interpreter. Nothing of the runner's own packages but what
        `requirements/environments/shared.in` names can be imported there, Hydra least of all."""


@runtime_checkable
class CallsInto(Protocol):
    def called_environments(self, recipe: Recipe) -> Sequence[Chosen]:
        """Environments that single tasks of the stage run in, besides that of its workers."""


@runtime_checkable
class HasSettings(Protocol):
    """settings: describes the keys of another package's stage, which are under `stages.<name>` of the recipe. The stage
    reads them by `settings_of`, and they affect the result if `reads` names `stages.<name>`."""

    settings: type[Section]


@runtime_checkable
class HasRules(Protocol):
    def rules(self) -> Sequence[Rule]:
        """What must hold in a recipe, beyond the schema. A rule is pure and imports nothing heavy; of a recipe with
        mistakes it gets what can be read."""


@runtime_checkable
class PassesThrough(Protocol):
    def mappings(self) -> Sequence[Mapped]:
        """Keys of the recipe whose values go to a library as they are, and what the library knows."""


@runtime_checkable
class WarmsUp(Protocol):
    def warm_up(self, ctx: RunContext[Any], running_stage: str) -> str:
        """Start what takes long to start, if `running_stage` leaves enough of the cluster free. Returns what was
        started, "" for nothing. Called before each stage that runs before this one, until it has started something;
        not all inputs are there by then, and `run` must do without it."""


@dataclass(frozen=True)
class Workers:
    """The workers of a stage that computes on the accelerator, each on one GPU.

    count: that must run side by side. why: how the count comes about, as `a x b = `, "" where it is
    `resources.<stage>.num_workers`. ranks: workers of one engine. counted_by: the key that counts the engines instead
    of `num_workers`, "" for none. widened_by: the key that makes the stage compute on more GPUs. may_change: the stage
    continues with other workers when the cluster's nodes come and go.
    """

    count: int
    widened_by: str
    why: str = ""
    ranks: int = 1
    counted_by: str = ""
    may_change: bool = False


@runtime_checkable
class Computes(Protocol):
    name: ClassVar[str]

    def workers(self, recipe: Recipe) -> Workers:
        """The stage's workers. Of a recipe with mistakes it gets what can be read."""


@runtime_checkable
class HasRemarks(Protocol):
    def remarks(self, recipe: Recipe) -> Iterator[str]:
        """What a person should know of the stage before it runs, a line each; of a recipe that is valid."""


@runtime_checkable
class HasLibraryArguments(Protocol):
    name: ClassVar[str]

    def library_arguments(self, recipe: Recipe) -> tuple[str, Mapping[str, Any]]:
        """The library that the recipe chooses, and the arguments that it is given; `diff` compares them where the
        libraries differ. Raises RunnerError for arguments that are not for a recipe to set."""


@runtime_checkable
class KeepsAlive(Protocol):
    """An ephemeral stage whose result may stay when all stages are done, until the run is interrupted."""

    def keep_alive(self, recipe: Recipe) -> str:
        """The key of the recipe that asks for it; "" when none does."""

    def usage(self, recipe: Recipe, artifacts: Mapping[str, Artifact]) -> str:
        """How a person uses what stays. artifacts: the run's, by name, with all that the stage provides."""


@runtime_checkable
class Deletes(Protocol):
    def deletes(self, recipe: Recipe) -> Sequence[str]:
        """Names of artifacts that the stage deletes: that they are gone makes no stage run again, unless a later one
        needs them."""


@runtime_checkable
class HasSummary(Protocol):
    name: ClassVar[str]

    def summary(self, record: StageRecord | None) -> dict[str, Any]:
        """Keys of the stage's own in summary.json. record: of this run; None when the stage is not in it."""


def environment_of(stage: Any, recipe: Recipe) -> Chosen | None:
    """The environment of its own that the stage runs in, None for the runner's."""
    return stage.environment(recipe) if isinstance(stage, RunsIn) else None


def environments_of(stage: Any, recipe: Recipe) -> list[Chosen]:
    """All environments besides the runner's own that work of the stage runs in, each once."""
    own = environment_of(stage, recipe)
    called = stage.called_environments(recipe) if isinstance(stage, CallsInto) else ()
    return list({each.name: each for each in (*([own] if own else ()), *called)}.values())


@runtime_checkable
class SavesWhenStopped(Protocol):
    def stop_s(self, recipe: Recipe) -> float:
        """Seconds that the stage needs to save its work when the run is interrupted."""


@runtime_checkable
class Excludes(Protocol):
    def conflict(self, recipes: Sequence[Any]) -> tuple[str, str]:
        """Why runs of these recipes cannot be at the same time, and what to do instead; ("", "") when they can."""


@dataclass(frozen=True)
class Objective:
    """What a run returns to a sweep. interval: its confidence interval. base: what the run compares the value with."""

    value: float | None = None
    interval: tuple[float, float] | None = None
    base: float | None = None


@runtime_checkable
class HasObjective(Protocol):
    def objective(self, recipe: Any) -> str:
        """The name of the figure that a sweep looks at."""

    def reached(self, summary: Mapping[str, Any], objective: str) -> Objective:
        """The figure of that name in summary.json."""


@runtime_checkable
class HasFigures(Protocol):
    def figures(self, metrics: Mapping[str, Any]) -> Mapping[str, Any]:
        """Figures to track from run to run, by their whole names. Those of other stages begin with the stage's."""


def settings_model(stage: Any) -> type[Section] | None:
    """What describes the stage's own keys, or None. Raises TypeError when that is not a Section."""
    if not hasattr(stage, "settings"):  # what HasSettings asks; a check by a protocol takes longer than many rules
        return None
    if isinstance(stage.settings, type) and issubclass(stage.settings, Section):
        return stage.settings
    raise TypeError(f"its settings are {stage.settings!r}, not a subclass of runner.recipe.schema.Section")


def settings_of(stage: Any, recipe: Recipe) -> Any:
    """The stage's own keys of the recipe, as its `settings`."""
    return stage.settings.model_validate(recipe.stages.get(stage.name, {}))
