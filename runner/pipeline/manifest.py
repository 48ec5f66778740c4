"""The manifest of a run: its stages' records, as a JSON file that is replaced atomically."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from runner.errors import RunnerError
from runner.pipeline.moved import below, root_before
from runner.storage.artifact import Artifact
from runner.storage.atomic import indented, read_state, sealed, write_text

MANIFEST = "manifest.json"
DRAWINGS = ".drawings"  # next to a recipe's runs: the curves of their reports
ORIGINS = "origins.json"  # of each key of the recipe, the file or override that set it
_COPY = ".manifest.copy.json"


class StageRecord(BaseModel):
    """What became of a stage in a run."""

    name: str
    status: Literal["done", "skipped", "failed", "interrupted"]
    fingerprint: str = ""
    inputs: dict[str, Any] = Field(default_factory=dict, description="What the fingerprint covers, for explaining it.")
    artifacts: list[Artifact] = Field(default_factory=list)
    metrics: dict[str, Any] = Field(default_factory=dict)
    note: str = ""
    resources: dict[str, Any] = Field(default_factory=dict)
    started_at: float = 0.0
    wall_s: float = 0.0
    origin_run: str | None = Field(None, description="Run whose result was reused; null when it ran here.")
    shared: str = Field("", description="Artifact store that holds this record for other machines.")
    from_store: bool = Field(False, description="Whether it was taken from there, and not from a run on this machine.")
    error: str | None = None
    warnings: list[str] = Field(default_factory=list, description="What it left behind (see `runner.cluster.leaks`).")

    @property
    def gate(self) -> dict[str, Any] | None:
        """The verdict of the stage's gate, `{passed, missed}`; None when it has none."""
        gate = self.metrics.get("gate")
        return gate if isinstance(gate, dict) else None

    @property
    def gate_refused(self) -> bool:
        """Whether the run ends here, because what the stage has found is not good enough."""
        return self.gate is not None and self.gate.get("passed") is False


class Manifest(BaseModel):
    """A run: its stages' records in order."""

    run_id: str
    recipe: str
    status: Literal["running", "done", "failed", "interrupted", "gate_refused"] = "running"
    created_at: float = 0.0
    ended_by: str = Field("", description="Why it failed, where no stage did: what the operating system refused.")
    machine: str = Field("", description="Where it ran, as `runner.recipe.machine.machine_name` says.")
    stages: list[StageRecord] = Field(default_factory=list)
    damage: str = Field("", exclude=True, description="Why the file itself could not be read, though its copy could.")

    def artifact(self, name: str) -> Artifact | None:
        """The newest artifact of that name, or None."""
        for record in reversed(self.stages):
            for artifact in record.artifacts:
                if artifact.name == name:
                    return artifact
        return None

    def record(self, record: StageRecord) -> None:
        """Put the record in place of an older one of the same stage, or at the end."""
        self.stages = [kept for kept in self.stages if kept.name != record.name] + [record]

    def save(self, run_dir: Path) -> None:
        """Write the manifest, and then a copy that a damaged one is replaced by."""
        text = indented(sealed(self.model_dump(mode="json")))
        for name in (MANIFEST, _COPY):
            write_text(run_dir / name, text)

    @classmethod
    def load(cls, run_dir: Path) -> Manifest:
        """Read a run's manifest, its artifacts where a root that was moved is now. `damage` says so when it had to be
        taken from its copy.

        Raises RunnerError naming the file when both are corrupt, edited, or not manifests; OSError when it is missing.
        """
        try:
            return cls._read(run_dir / MANIFEST).placed(run_dir)
        except RunnerError as error:
            try:
                manifest = cls._read(run_dir / _COPY)
            except (RunnerError, FileNotFoundError):
                raise error from None
            manifest.damage = f"{error.message}; its copy {run_dir / _COPY} is used"
            return manifest.placed(run_dir)

    def placed(self, run_dir: Path) -> Manifest:
        """Itself, with its artifacts below the root that the run's folder is in now, where they are there."""
        root = run_dir.resolve().parent.parent
        artifacts = [artifact for record in self.stages for artifact in record.artifacts]
        run_ids = {self.run_id, *(record.origin_run for record in self.stages if record.origin_run)}
        before = root_before(artifacts, self.recipe, run_ids)
        if before is not None and before != root:
            for record in self.stages:
                record.artifacts = [below(root, before, each) for each in record.artifacts]
        return self

    @classmethod
    def _read(cls, path: Path) -> Manifest:
        values = read_state(path)
        try:
            return cls.model_validate(values)
        except ValueError as error:
            raise RunnerError(f"{path} is not a manifest: {error}", "Remove that run's folder.") from error
