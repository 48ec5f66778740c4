"""The folder of a run that has finished, for what reads other runs."""

from __future__ import annotations

from pathlib import Path

from runner.pipeline.manifest import Manifest, StageRecord
from runner.storage.artifact import Artifact
from runner.storage.atomic import write_state
from stages.sections.recipe import Recipe


def finished_run(folder: Path, recipe: Recipe, artifacts: list[Artifact]) -> None:
    """Write the manifest and the recipe of a run that made these artifacts."""
    folder.mkdir(parents=True, exist_ok=True)
    record = StageRecord(name="train", status="done", artifacts=artifacts)
    Manifest(run_id=folder.name, recipe=recipe.name, status="done", stages=[record]).save(folder)
    write_state(folder / "recipe.json", recipe.model_dump(mode="json"))
