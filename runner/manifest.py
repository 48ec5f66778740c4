"""Artifacts and stage records: what a run made, by name and digest, as JSON files that are replaced atomically."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from runner import durable
from runner.errors import RunnerError

MANIFEST = "manifest.json"
DRAWINGS = ".drawings"  # beside a recipe's runs: the curves of their reports
ORIGINS = "origins.json"  # of each key of the recipe, the file or override that set it
_COPY = ".manifest.copy.json"
_SEAL = "self_sha256"
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
    shared: str = Field("", description="Artifact store that holds this record for other machines.")
    from_store: bool = Field(False, description="Whether it was taken from there, and not from a run on this machine.")
    error: str | None = None
    warnings: list[str] = Field(default_factory=list, description="What it left behind (see `runner.leaks`).")


class Manifest(BaseModel):
    """A run: its stages' records in order."""

    run_id: str
    recipe: str
    status: Literal["running", "done", "failed", "interrupted", "gate_refused"] = "running"
    created_at: float = 0.0
    machine: str = Field("", description="Where it ran, as `runner.machine.machine_name` says.")
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
        text = _indented(sealed(self.model_dump(mode="json")))
        for name in (MANIFEST, _COPY):
            write_text(run_dir / name, text)

    @classmethod
    def load(cls, run_dir: Path) -> Manifest:
        """Read a run's manifest. `damage` says so when it had to be taken from its copy.

        Raises RunnerError naming the file when both are torn, edited, or no manifests; OSError when it is not there.
        """
        try:
            return cls._read(run_dir / MANIFEST)
        except RunnerError as error:
            try:
                manifest = cls._read(run_dir / _COPY)
            except (RunnerError, FileNotFoundError):
                raise error from None
            manifest.damage = f"{error.message}; its copy {run_dir / _COPY} is used"
            return manifest

    @classmethod
    def _read(cls, path: Path) -> Manifest:
        values = read_state(path)
        try:
            return cls.model_validate(values)
        except ValueError as error:
            raise RunnerError(f"{path} is no manifest: {error}", "Remove that run's folder.") from error


def write_text(path: Path, text: str) -> None:
    """Replace the file in one step: a reader sees the old content or the new, never a part; parents are made."""
    durable.write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """`write_text` of the value as indented JSON."""
    write_text(path, _indented(value))


def write_state(path: Path, values: Mapping[str, Any]) -> None:
    """`write_json` of a mapping that the runner will read again, with a digest of itself under `self_sha256`."""
    write_text(path, _indented(sealed(values)))


def read_state(path: Path) -> dict[str, Any]:
    """What `write_state` wrote. Raises RunnerError naming the file when it is torn or edited, OSError when it is not
    there."""
    return unsealed(path.read_bytes(), str(path))


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping with a digest of itself under `self_sha256`."""
    plain: dict[str, Any] = json.loads(json.dumps(values))  # as it will be read: the keys are text
    return {**plain, _SEAL: digest_json(plain)}


def unsealed(data: bytes, shown: str) -> dict[str, Any]:
    """The mapping of a sealed JSON document without its digest. Raises RunnerError when that is not its digest.

    shown: what to call the document.
    """
    try:
        values = json.loads(data)
        digest = values.pop(_SEAL)
        why = "" if digest == digest_json(values) else f"its content has changed since it was written ({_SEAL})"
    except (ValueError, RecursionError) as error:
        why = f"not JSON: {error}"
    except (AttributeError, KeyError, TypeError):
        why = f"it has no {_SEAL}"
    if why:
        raise RunnerError(f"{shown} is damaged: {why}", "Restore it, or remove it and run again.")
    assert isinstance(values, dict)
    return values


def _indented(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


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
    """Describe a finished local folder as an artifact: every file below it with size and SHA-256.

    The files are on the disk when this returns, so that a record of them never outlives them.
    """
    durable.sync_tree(folder)
    files = [
        FileEntry(path=path.relative_to(folder).as_posix(), size_bytes=path.stat().st_size, sha256=digest_file(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    return Artifact(name=name, uri=str(folder), sha256=digest_files(files), files=files, meta=dict(meta or {}))
