"""What the exported files are about."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from runner.errors import UsageError
from runner.pipeline import plan as planning
from runner.pipeline.rules.resources import num_workers
from runner.recipe.schema import RunOptions
from runner.storage.artifact import Artifact
from stages.sections.recipe import Recipe

HOME = PurePosixPath("/home/ray/work")  # the working directory in the image of `containerfile`
SECRET = "recipe-runner"  # noqa: S105 - the name of a secret, which holds AWS_ACCESS_KEY_ID and the like as variables


@dataclass(frozen=True)
class Facts:
    """recipe: resolved. overrides: of the command line that names it. image: the container image of `containerfile`.

    serve: the Ray Serve config of what the newest run evaluated; None when no target asks for one.
    config_dir: folder of the user's own recipes, as the command line names it.
    """

    recipe: Recipe
    overrides: tuple[str, ...]
    image: str
    serve: dict[str, Any] | None = None
    config_dir: str | None = None

    @property
    def name(self) -> str:
        """The recipe's name as Kubernetes takes one of a service (RFC 1035): it begins with a letter."""
        name = re.sub(r"[^a-z0-9-]+", "-", self.recipe.name.lower()).strip("-")
        return (name if name[:1].isalpha() else f"recipe-{name}")[:40].strip("-")

    def command(self, *more: str) -> str:
        """The shell command that runs the recipe, with more overrides at its end."""
        return shlex.join(["python", "-m", "runner", *self.arguments(*more)])

    def arguments(self, *more: str) -> list[str]:
        """What follows `python -m runner`."""
        return [*(["--config-dir", self.config_dir] if self.config_dir else []), *self.overrides, *more]

    @property
    def root(self) -> str:
        """The folder of the run folders in a container."""
        return str(HOME / self.recipe.storage.root)  # an absolute one stays as it is

    def workers(self) -> tuple[int, float, float]:
        """Worker processes that run side by side at most, and CPUs and GPUs of the largest."""
        stages = [stage for stage in ("train", "infer", "serve") if stage in self.recipe.pipeline]
        wanted = [self.recipe.resources_of(stage) for stage in stages]
        return (
            max((num_workers(self.recipe, stage)[0] for stage in stages), default=1),
            max((each.cpus_per_worker for each in wanted), default=1.0),
            max((each.gpus_per_worker for each in wanted), default=0.0),
        )


def task_overrides(overrides: Sequence[str]) -> tuple[str, ...]:
    """Those that say what the recipe is, without those of the export and of the place where it runs."""
    own = ("action", "target", "export_to", "image", "format", "runs", "cluster.address")
    return tuple(text.removeprefix("++") for text in overrides if text.lstrip("+").partition("=")[0] not in own)


def served_config(recipe: Recipe, options: RunOptions, root: Path) -> dict[str, Any]:
    """The Ray Serve config of the adapter that the newest run has evaluated, or of the base model without `publish`.

    Raises UsageError when there is no such run, GateError when its gate refused.
    """
    from stages.engines.base import load_engine
    from stages.serve.config import serve_config
    from stages.serve.fit import passed

    made: dict[str, Artifact] = {}
    for step in planning.build(recipe, options, planning.PastRuns(root)).steps:
        if step.record is not None:
            made |= {artifact.name: artifact for artifact in step.record.artifacts}
    wanted = ["model", *(["adapter"] if "publish" in recipe.pipeline else [])]
    wanted += ["scores"] if "evaluate" in recipe.pipeline else []
    if missing := [name for name in wanted if name not in made]:
        raise UsageError(
            f"no finished run of {recipe.name} has made its {' and '.join(missing)}, which a service needs",
            "Run the same recipe with stop_after=evaluate first.",
        )
    adapter = passed(made["adapter"] if "publish" in recipe.pipeline else None, made.get("scores"))
    store, served = (adapter.store, [adapter.id]) if adapter else (None, None)
    return serve_config(
        recipe, str(made["model"].path), store, served=served, env=load_engine(recipe).server_env(recipe)
    )
