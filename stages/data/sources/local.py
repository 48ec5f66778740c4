"""Files of this machine, or of a file system that all nodes see."""

from __future__ import annotations

from pathlib import Path

from runner.errors import RunnerError
from runner.storage.content import file_state
from stages.data.sources.base import NAME_HINT, Count, is_pattern, matching
from stages.data.sources.names import folder_of


class LocalFiles:
    """Files below a folder; they are used where they are."""

    def __init__(self, source: str) -> None:
        self._source = source
        self.folder = Path(folder_of(source)).expanduser().absolute()

    def find(self, pattern: str) -> list[str]:
        """As FileSource."""
        if not self.folder.is_dir():
            raise RunnerError(f"dataset.source={self._source}: there is no folder {self.folder}", "Correct the path.")
        if not is_pattern(pattern) or (self.folder / pattern).is_file():
            return [pattern]
        return matching(self._source, pattern, names_below(self.folder))

    def all(self) -> list[str]:
        """Names of files of rows, as a pattern for all would find them; none where there are none."""
        try:
            return matching(self._source, "*", names_below(self.folder))
        except RunnerError:
            return []

    def local(self, name: str) -> Path:
        """As FileSource. Raises RunnerError when it is not there."""
        path = self.folder / name
        if not path.is_file():
            there = ", ".join(sorted(item.name for item in self.folder.iterdir())[:10]) or "nothing"
            raise RunnerError(f"dataset.source={self._source} has no file {name}; it holds: {there}", NAME_HINT)
        return path

    def tag(self, name: str) -> str | None:
        """As FileSource: of the content."""
        return file_state(self.local(name))

    def fetch(self, name: str, target: Path, count: Count) -> None:
        """Never called: the files are here."""
        raise AssertionError(name)


def names_below(folder: Path) -> list[str]:
    """Files below the folder, relative to it, with / between folders."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def open_source(source: str, endpoint_url: str | None, anonymous: bool) -> LocalFiles:
    """The files of a local source."""
    return LocalFiles(source)
