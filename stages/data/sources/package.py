"""Files inside an installed Python package: package://<distribution>/<folder or file>."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from runner.errors import RunnerError
from stages.data.sources.local import LocalFiles
from stages.data.sources.names import folder_of


def open_source(source: str, endpoint_url: str | None, anonymous: bool) -> LocalFiles:
    """The package's files, used where they are. Raises RunnerError when it is not installed or has no such folder."""
    name, _, below = folder_of(source).removeprefix("package://").partition("/")
    if ".." in below.split("/"):
        raise RunnerError(f"dataset.source={source} leads out of the package", "Write the path without '..'.")
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise RunnerError(f"dataset.source={source}: the package {name} is not installed", "Install it.") from error
    files = [str(each) for each in distribution.files or ()]
    tops = {each.partition("/")[0] for each in files if "/" in each and ".dist-info" not in each}
    for top in sorted(tops):
        for folder in (Path(str(distribution.locate_file(top))) / below, Path(str(distribution.locate_file(below)))):
            if below and folder.is_dir():
                return _in_package(source, folder)
    if not below and len(tops) == 1:
        return _in_package(source, Path(str(distribution.locate_file(tops.pop()))))
    raise RunnerError(f"dataset.source={source}: the package has no folder {below!r}", "Correct the path.")


def _in_package(source: str, folder: Path) -> LocalFiles:
    found = LocalFiles(source)
    found.folder = folder.absolute()
    return found
