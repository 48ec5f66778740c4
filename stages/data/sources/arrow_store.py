"""Google Cloud Storage and Azure Blob Storage, through Arrow's file systems and their own chains of credentials."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from stages.data.sources.base import NAME_HINT, Count, is_pattern, matching
from stages.data.sources.names import folder_of, scheme_of

_PIECE_BYTES = 1 << 20


class ArrowFiles:
    """Files below a path of one of Arrow's file systems."""

    def __init__(self, source: str, system: Any, path: str) -> None:
        self._source, self._system, self._path = source, system, path.strip("/")

    def find(self, pattern: str) -> list[str]:
        """As FileSource."""
        if not is_pattern(pattern):
            return [pattern]
        from pyarrow import fs

        try:
            found = self._system.get_file_info(fs.FileSelector(self._path, recursive=True))
        except OSError as error:
            raise self._explained(pattern, error) from error
        there = [each.path[len(self._path) + 1 :] for each in found if each.is_file]
        return matching(self._source, pattern, there)

    def local(self, name: str) -> Path | None:
        """As FileSource."""
        return None

    def fetch(self, name: str, target: Path, count: Count) -> None:
        """As FileSource."""
        try:
            path = f"{self._path}/{name}"
            count.expect(self._system.get_file_info(path).size)
            with self._system.open_input_stream(path) as file, target.open("wb") as out:
                while piece := file.read(_PIECE_BYTES):
                    out.write(piece)
                    count.add(len(piece))
        except OSError as error:
            raise self._explained(name, error) from error

    def tag(self, name: str) -> str | None:
        """As FileSource: the file's size and time of change."""
        try:
            found = self._system.get_file_info(f"{self._path}/{name}")
        except OSError as error:
            raise self._explained(name, error) from error
        return f"{found.size} {found.mtime_ns}" if found.is_file else None

    def _explained(self, name: str, error: OSError) -> RunnerError:
        first = str(error).splitlines()[0][:300]
        return RunnerError(f"dataset.source={self._source}: {name}: {first}", NAME_HINT)


def open_source(source: str, endpoint_url: str | None, anonymous: bool) -> ArrowFiles:
    """The files of a gs:// or az://container source. Azure's account is named by AZURE_STORAGE_ACCOUNT_NAME."""
    from pyarrow import fs

    folder = folder_of(source)
    path = folder.partition("://")[2]
    if scheme_of(source) == "gs":
        return ArrowFiles(source, fs.GcsFileSystem(anonymous=anonymous, endpoint_override=endpoint_url), path)
    account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    if not account:
        raise RunnerError(
            f"dataset.source={source} names no storage account", "Set AZURE_STORAGE_ACCOUNT_NAME in the environment."
        )
    return ArrowFiles(source, fs.AzureFileSystem(account_name=account), path)
