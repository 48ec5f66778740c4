"""Artifacts and stage records: what a run made, by name and digest, as JSON files that are replaced atomically."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from runner.errors import RunnerError

MANIFEST = "manifest.json"
_CHUNK_BYTES = 1 << 20


class FileEntry(BaseModel):
    """One file of an artifact; `path` is relative to the artifact's URI."""

    model_config = ConfigDict(frozen=True)

    path: str
    size_bytes: int
    sha256: str


class Artifact(BaseModel):
    """A named set of files at a URI (a local folder, or an s3:// prefix), identified by the digest of its content.

    `sha256` covers the files' relative paths and digests, so it is the same wherever the set is copied to.
    `kind: endpoint` has no files: it is something that listens while the run lasts.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    uri: str
    sha256: str
    files: list[FileEntry] = Field(default_factory=list)
    kind: Literal["files", "endpoint"] = "files"
    meta: dict[str, Any] = Field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.files)

    @property
    def path(self) -> Path:
        """The artifact's local folder; an artifact in an object store has none (AssertionError)."""
        assert "://" not in self.uri, f"artifact {self.name} is at {self.uri}, not in a local folder"
        return Path(self.uri)

    def summary(self) -> dict[str, Any]:
        return {"name": self.name, "uri": self.uri, "sha256": self.sha256, "bytes": self.size_bytes}


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
    origin_run: str | None = Field(None, description="Run whose result was taken over; null when it ran here.")
    error: str | None = None


class Manifest(BaseModel):
    """A run: its stages' records in order."""

    run_id: str
    recipe: str
    status: Literal["running", "done", "failed", "interrupted", "gate_refused"] = "running"
    created_at: float = 0.0
    stages: list[StageRecord] = Field(default_factory=list)

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
        write_json(run_dir / MANIFEST, self.model_dump(mode="json"))

    @classmethod
    def load(cls, run_dir: Path) -> Manifest:
        """Read a run's manifest. Raises RunnerError naming the file when it is torn or not a manifest."""
        path = run_dir / MANIFEST
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValueError as error:
            raise RunnerError(
                f"{path} is damaged: {error}", "Remove that run's folder, or restore the file."
            ) from error


def write_text(path: Path, text: str) -> None:
    """Replace the file in one step: a reader sees the old content or the new, never a part; parents are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """`write_text` of the value as indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def digest_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_json(value: Any) -> str:
    """Digest of a JSON value, independent of the order of keys."""
    return digest_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())


def digest_file(path: Path) -> str:
    """SHA-256 of a file's content, read in 1 MiB pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_files(files: Iterable[FileEntry]) -> str:
    """Digest of a set of files: of their relative paths and digests, independent of their order."""
    return digest_json({entry.path: entry.sha256 for entry in files})


def scan_folder(name: str, folder: Path, meta: Mapping[str, Any] | None = None) -> Artifact:
    """Describe a finished local folder as an artifact: every file below it with size and SHA-256."""
    files = [
        FileEntry(path=path.relative_to(folder).as_posix(), size_bytes=path.stat().st_size, sha256=digest_file(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    return Artifact(name=name, uri=str(folder), sha256=digest_files(files), files=files, meta=dict(meta or {}))
