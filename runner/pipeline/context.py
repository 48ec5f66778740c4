"""What a stage is given: the recipe, its input artifacts, a folder to write in, Ray, and a way to say how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from runner.cluster import environments
from runner.cluster.session import RaySession
from runner.errors import RunnerError
from runner.recipe.schema import Recipe, StageResources
from runner.storage.artifact import Artifact

R = TypeVar("R", bound=Recipe)


@dataclass
class RunContext(Generic[R]):
    """A stage's view of the run.

    stage: its name. run_dir: the run's folder; stage_dir: this stage's own below it, empty or holding what an
    interrupted attempt with the same fingerprint left. fingerprint: digest of all that affects the result.
    inputs: the artifacts that it needs, by name. ray: the run's one Ray session, started at the first use.
    environment: of its workers; None for the runner's own.
    """

    recipe: R
    stage: str
    run_id: str
    run_dir: Path
    stage_dir: Path
    fingerprint: str
    inputs: dict[str, Artifact]
    ray: RaySession
    deferred: list[tuple[str, Callable[[], None]]] = field(default_factory=list)
    say: Callable[[str], None] = lambda message: None
    manifest_artifacts: Callable[[], list[Artifact]] = list
    environment: str | None = None

    @property
    def resources(self) -> StageResources:
        """This stage's resources of the recipe, with the interpreter of its environment."""
        wanted = self.recipe.resources_of(self.stage)
        env = environments.runtime_env(self.environment, wanted.runtime_env)
        return wanted.model_copy(update={"runtime_env": env})

    def input(self, name: str) -> Artifact:
        """The input artifact of that name. Raises RunnerError when no stage has made it."""
        if name not in self.inputs:
            raise RunnerError(
                f"stage {self.stage} needs the artifact {name!r}, which no stage has made",
                "Put the stage that provides it before this one in `pipeline`.",
            )
        return self.inputs[name]

    def defer(self, what: str, undo: Callable[[], None]) -> None:
        """Have `undo` called when the run ends, however it ends (last first); `what` names it in the log."""
        self.deferred.append((what, undo))

    def deferred_names(self) -> set[str]:
        """What of this run waits to be undone, by name."""
        return {what for what, _ in self.deferred}

    def progress(self) -> Any:
        """A picklable handle for the stage's work on Ray: `.update(done, total, unit, **figures)`."""
        return self.ray.progress(self.stage)
