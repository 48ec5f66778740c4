"""Paths of the exporting machine, which mean nothing where the exported files are used."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.errors import UsageError
from stages.deploy.export.facts import Facts

_HOW = (
    "Run the recipe with a store and a root that the cluster sees, and export that run: "
    "storage.artifacts=s3://BUCKET/PREFIX storage.root=/mnt/SHARED/runs model.source=s3://BUCKET/MODEL."
)
_CONTAINERS = ("kuberay", "anyscale")


def own_folders() -> list[Path]:
    """Folders that are this machine's, or this person's."""
    folders = [Path.home(), Path.cwd(), Path(sys.prefix), Path(tempfile.gettempdir())]
    return [each for each in dict.fromkeys([*folders, *(each.resolve() for each in folders)]) if each != Path("/")]


def portable_env(env: Mapping[str, str]) -> dict[str, str]:
    """The variables less those that name files of this Python environment: each node's own has them elsewhere."""
    prefix = re.compile(re.escape(sys.prefix) + r"(/|$)")
    return {name: value for name, value in env.items() if not prefix.search(value)}


def refuse_own_paths(target: str, facts: Facts) -> None:
    """Raise UsageError, naming the value, when a file of the target would hold a path of this machine."""
    keys = facts.recipe.serve.api_keys
    if target in _CONTAINERS and keys is not None and keys.file is not None:
        message = f"serve.api_keys.file={keys.file} is a file that no container of {target} has"
        raise UsageError(message, "Set serve.api_keys.env, and put the variable into the service's secret.")
    folders = own_folders()
    for where, value in _texts(facts):
        if any(_is_below(part, folder) for part in _paths_in(value) for folder in folders):
            raise UsageError(f"{where} names a path of this machine, which the cluster does not see: {value}", _HOW)


def _texts(facts: Facts) -> Iterator[tuple[str, str]]:
    yield from (("the command line", text) for text in facts.overrides)
    yield from (("--config-dir", text) for text in [facts.config_dir or ""] if Path(text).is_absolute())
    yield from _leaves(facts.serve, "the Serve config")


def _leaves(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _leaves(each, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _leaves(each, f"{where}[{index}]")
    elif isinstance(value, str):
        yield where, value


def _paths_in(text: str) -> Iterator[Path]:
    """Absolute paths in a text, and a text that is the relative path of something here. `~` is each node's own."""
    for found in re.findall(r"(?:file://|(?<![\w:/.~-]))(/[^\s,:;'\"]+)", text):
        yield Path(found)
    if "/" in text and "://" not in text and not text.startswith("/") and Path(text).exists():
        yield Path(text).absolute()


def _is_below(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents
