"""The base model as an artifact. What a task in an environment of its own imports is all that this module imports."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.cluster import environments
from runner.cluster.environments import Chosen
from runner.recipe.schema import StageResources
from runner.storage.artifact import Artifact
from stages.models import gguf
from stages.models import obtain as models

if TYPE_CHECKING:
    from stages.sections.recipe import Recipe

_UPDATE_EVERY_S = 0.5


def converted_in(recipe: Recipe) -> Chosen | None:
    """The environment that the model is converted in; None where it is not converted."""
    if not recipe.model.source.startswith("package://"):
        return None
    return Chosen(gguf.ENVIRONMENT, "model.source", recipe.model.source)


def resources_there(resources: StageResources, chosen: Chosen | None) -> StageResources:
    """The resources of a task in the environment, which has the packages that the stage's own would get; None: as they
    are."""
    if chosen is None:
        return resources
    given = {name: value for name, value in resources.runtime_env.items() if name not in environments.PACKAGES}
    return resources.model_copy(update={"runtime_env": environments.runtime_env(chosen.name, given)})


def fetch_model(recipe: Recipe, progress: Any) -> Artifact:
    """`obtain_model` as a task. progress: a `ProgressHandle`."""
    return obtain_model(recipe, throttled(progress.update))


def obtain_model(recipe: Recipe, update: Callable[..., None]) -> Artifact:
    """The base model as an artifact. `update`: as `ProgressHandle.update`."""
    model, cache = recipe.model, Path(recipe.storage.cache).expanduser().absolute()
    folder = models.obtain_model(
        model.source, model.revision, cache, recipe.storage.endpoint_url, model.trust_remote_code,
        lambda done, total: update(done, total, "bytes"),
    )  # fmt: skip
    return models.describe_model(folder, cache, {"source": model.source, "revision": model.revision})


def throttled(update: Callable[..., None]) -> Callable[..., None]:
    """The same, at most twice a second: a download reports every piece, and each report is a message."""
    last = 0.0

    def at_times(*args: Any, **figures: Any) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _UPDATE_EVERY_S:
            last = now
            update(*args, **figures)

    return at_times
