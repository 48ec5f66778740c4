"""Files of this machine, or of a file system that all nodes see."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from runner.errors import RunnerError
from runner.storage.content import file_state
from stages.data.sources.base import NAME_HINT, NARROWER, Count, is_pattern, matching
from stages.data.sources.names import folder_of

LOOK_S = 20.0
_KERNELS = (Path("/proc"), Path("/sys"))


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
        return matching(self._source, pattern, names_below(self.folder, self._source))

    def all(self) -> list[str]:
        """Names of files of rows, as a pattern for all would find them; none where there are none."""
        try:
            return matching(self._source, "*", names_below(self.folder, self._source))
        except RunnerError:
            return []

    def local(self, name: str) -> Path:
        """As FileSource. Raises RunnerError when it is not there."""
        path = self.checked(name)
        if not path.is_file():
            there = ", ".join(sorted(item.name for item in self.folder.iterdir())[:10]) or "nothing"
            raise RunnerError(f"dataset.source={self._source} has no file {name}; it holds: {there}", NAME_HINT)
        return path

    def checked(self, name: str) -> Path:
        """The path of the name. Raises RunnerError for what is there and cannot be a file of rows."""
        path = self.folder / name
        if not (path.is_symlink() or path.exists()):
            return path
        real = path.resolve()
        if _is_virtual(path) or (path.exists() and not path.is_file() and not path.is_dir()):
            words = f"dataset.source={self._source}: {name} is not a file of a disk but a device, a pipe or in /proc"
            raise RunnerError(words, "Write the rows into a file.")
        if not real.is_relative_to(_home(self.folder)):
            words = f"dataset.source={self._source}: {name} is a link to {real}, which is outside of that folder"
            raise RunnerError(words, f"Copy it there, or set dataset.source={real.parent} if that is what you mean.")
        return path

    def tag(self, name: str) -> str | None:
        """As FileSource: of the content."""
        return file_state(self.local(name))

    def fetch(self, name: str, target: Path, count: Count) -> None:
        """Never called: the files are here."""
        raise AssertionError(name)


def names_below(folder: Path, source: str) -> Iterator[str]:
    """Files below the folder, relative to it, with / between folders; links to folders are not followed.

    Raises RunnerError when the look takes longer than LOOK_S.
    """
    end = time.monotonic() + LOOK_S
    for above, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not _is_virtual(Path(above) / name)]
        if time.monotonic() > end:
            raise RunnerError(f"dataset.source={source}: {LOOK_S:.0f} s were not enough to list its files", NARROWER)
        yield from (path.relative_to(folder).as_posix() for name in files if (path := Path(above) / name).is_file())


def _is_virtual(path: Path) -> bool:
    """Whether it belongs to the kernel (/proc, /sys) and to no disk, whatever the path that leads there."""
    with suppress(OSError):
        return path.stat().st_dev in {place.stat().st_dev for place in _KERNELS if place.is_dir()}
    return False


def _home(folder: Path) -> Path:
    """Where links of the folder may lead: below it, or in the hub's cache to the blobs of the same repository."""
    found = folder.resolve()
    at = found.parts.index("snapshots") if "snapshots" in found.parts else len(found.parts)
    return Path(*found.parts[:at])


def open_source(source: str, endpoint_url: str | None, anonymous: bool) -> LocalFiles:
    """The files of a local source."""
    return LocalFiles(source)
