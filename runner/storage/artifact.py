"""Artifacts: named sets of files, identified by the digest of their content."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from runner.storage import atomic
from runner.storage.digest import digest_file, digest_json


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
    in_store: bool = Field(False, description="Whether it is a complete set of a store, with a manifest of its own.")

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


def digest_files(files: Iterable[FileEntry]) -> str:
    """Digest of a set of files: of their relative paths and digests, independent of their order."""
    return digest_json({entry.path: entry.sha256 for entry in files})


def scan_folder(name: str, folder: Path, meta: Mapping[str, Any] | None = None) -> Artifact:
    """Describe a finished local folder as an artifact: every file below it with size and SHA-256.

    The files are on the disk when this returns, so that a record of them never outlives them.
    """
    atomic.sync_tree(folder)
    files = [
        FileEntry(path=path.relative_to(folder).as_posix(), size_bytes=path.stat().st_size, sha256=digest_file(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    return Artifact(name=name, uri=str(folder), sha256=digest_files(files), files=files, meta=dict(meta or {}))
