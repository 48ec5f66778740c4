"""Take down what the run started, and delete the artifacts that `cleanup.delete` names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from runner.errors import RunnerError
from runner.pipeline.context import RunContext
from runner.pipeline.estimates.figure import Estimate, Known
from runner.pipeline.optional import KeepsAlive, Rule
from runner.pipeline.registry import load_stage, loadable
from runner.pipeline.stage import StageResult
from runner.storage.artifact import Artifact
from runner.storage.store import checked_key, open_store
from stages.cleanup import rules
from stages.publish.stage import EARLIER
from stages.sections.recipe import Recipe

# What a service that stays up still reads.
_SERVED = ("adapter", "model")


class Cleanup:
    """Ends what other stages began. Touches only files that this run's manifest names."""

    name: ClassVar[str] = "cleanup"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("cleanup.delete", "serve.keep_alive")
    libraries: ClassVar[tuple[str, ...]] = ()
    provides: ClassVar[tuple[str, ...]] = ()
    ephemeral: ClassVar[bool] = True

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        """Nothing: it runs whatever was made."""
        return ()

    def rules(self) -> Sequence[Rule]:
        return rules.RULES

    def deletes(self, recipe: Recipe) -> Sequence[str]:
        return recipe.cleanup.delete

    def estimate(self, known: Known[Recipe]) -> Iterator[Estimate]:
        """Nothing: it takes no time to speak of."""
        return iter(())

    def run(self, ctx: RunContext[Recipe]) -> StageResult:
        """Raises RunnerError, before anything is deleted, for a name that no stage provides or a path that is not the
        run's own; and when something could not be taken down."""
        to_delete, kept = choose(ctx)
        kept_alive = any(
            stage.keep_alive(ctx.recipe) for stage in loadable(ctx.recipe.pipeline) if isinstance(stage, KeepsAlive)
        )
        stopped = [] if kept_alive else take_down(ctx)
        for number, artifact in enumerate(to_delete):
            ctx.progress().update(number, len(to_delete), "artifacts", state=f"deleting {artifact.name}")
            delete(artifact, ctx)
        deleted = [
            {"name": each.name, "uri": each.uri, "files": len(each.files), "bytes": each.size_bytes}
            for each in to_delete
        ]
        metrics = {"stopped": stopped, "deleted": deleted, "kept": kept, "kept_alive": kept_alive}
        return StageResult(metrics=metrics, note=_note(metrics))


def take_down(ctx: RunContext[Recipe]) -> list[str]:
    """Call what the stages deferred, last first, and return the names. One that fails does not stop the others.

    Raises RunnerError with all failures at the end.
    """
    stopped, failures = [], []
    while ctx.deferred:
        what, undo = ctx.deferred.pop()
        try:
            undo()
        except Exception as error:
            failures.append(f"{what}: {error}")
        else:
            stopped.append(what)
    if failures:
        raise RunnerError(f"could not stop {'; '.join(failures)}", "Look for processes that are left over.")
    return stopped


def choose(ctx: RunContext[Recipe]) -> tuple[list[Artifact], list[dict[str, str]]]:
    """The artifacts to delete, and those that are kept although named, each `{name, why}`.

    An artifact that was reused from an earlier run is that run's, and is kept; so is a set that was in the store
    before this run published the same. Raises RunnerError for a name that
    no stage of the pipeline provides, for what a service that stays up reads, and for a path outside of the run.
    """
    recipe = ctx.recipe
    if not recipe.cleanup.delete:
        return [], []
    made = {artifact.name: artifact for artifact in ctx.manifest_artifacts() if artifact.kind == "files"}
    known = {name for stage in recipe.pipeline for name in load_stage(stage).provides} - {"endpoint"} | set(made)
    to_delete, kept = [], []
    for name in dict.fromkeys(recipe.cleanup.delete):
        if name not in known:
            raise RunnerError(
                f"cleanup.delete names {name!r}, which no stage of this recipe makes",
                f"Name some of: {', '.join(sorted(known))}.",
            )
        if recipe.serve.keep_alive and name in _SERVED and "serve" in recipe.pipeline:
            raise RunnerError(
                f"cleanup.delete names {name!r}, which the service that serve.keep_alive leaves up still needs",
                "Leave it out, or set serve.keep_alive=false.",
            )
        if name in made and made[name].meta.get(EARLIER):
            kept.append({"name": name, "why": "published by an earlier run, too"})
        elif name in made:
            to_delete.append(_checked(made[name], ctx))
        else:
            kept.append({"name": name, "why": "not made by this run"})
    return to_delete, kept


def _checked(artifact: Artifact, ctx: RunContext[Recipe]) -> Artifact:
    """The artifact, if all that would be deleted is in the run's folder or in its artifact store."""
    for entry in artifact.files:
        checked_key(entry.path)
    if _in_store(artifact, ctx.recipe) or _is_below(artifact, ctx.run_dir):
        return artifact
    raise RunnerError(
        f"cleanup.delete names {artifact.name!r} at {artifact.uri}, which is neither in this run's folder "
        f"{ctx.run_dir} nor in storage.artifacts={ctx.recipe.storage.artifacts}",
        "Remove it by hand if nothing else uses it.",
    )


def _in_store(artifact: Artifact, recipe: Recipe) -> bool:
    store = recipe.storage.artifacts
    root = store.rstrip("/") if "://" in store else str(Path(store).expanduser().absolute())
    return artifact.uri.startswith(f"{root}/")


def _is_below(artifact: Artifact, folder: Path) -> bool:
    return "://" not in artifact.uri and artifact.path.resolve().is_relative_to(folder.resolve())


def delete(artifact: Artifact, ctx: RunContext[Recipe]) -> None:
    """Delete the artifact's files and nothing else. Files that are gone already are fine."""
    if _in_store(artifact, ctx.recipe):
        storage = ctx.recipe.storage
        open_store(storage.artifacts, endpoint_url=storage.endpoint_url).delete_set(artifact)
        return
    root = artifact.path.resolve()
    for entry in artifact.files:
        file = root / entry.path
        if not file.parent.resolve().is_relative_to(root):
            raise RunnerError(f"{file} leads out of {root} through a link", "Remove the link.")
        file.unlink(missing_ok=True)
    folders = sorted({parent for entry in artifact.files for parent in (root / entry.path).parents}, reverse=True)
    for folder in folders:  # deepest first
        if folder.is_relative_to(root) and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _note(metrics: dict[str, Any]) -> str:
    parts = []
    if metrics["stopped"]:
        parts.append(f"stopped {', '.join(metrics['stopped'])}")
    if metrics["deleted"]:
        parts.append(f"deleted {', '.join(each['name'] for each in metrics['deleted'])}")
    if metrics["kept"]:
        parts.append("kept " + ", ".join(f"{each['name']} ({each['why']})" for each in metrics["kept"]))
    if metrics["kept_alive"]:
        parts.append("the service stays up")
    return "; ".join(parts) or "nothing to stop"
