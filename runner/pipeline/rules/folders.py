"""Folders that a recipe file has written to: none that is kept for something else.

A recipe may come from a stranger. A program's own folder has a name that begins with a dot (`~/.ssh`, `.git`), or lies
where programs keep their state. Caches and data of the user's programs, places of earlier runs, and what the user's
command line, settings or environment names are for any recipe.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from runner.errors import Problem
from runner.pipeline.runs import known_roots
from runner.recipe.extension import extension
from runner.recipe.load import Composed, flatten
from runner.recipe.origin_rules import SETTINGS_FILE

_KEYS = ("storage.root", "storage.artifacts", "storage.cache")
_DATA = ("~/.cache", "~/.local/share", "~/.local/state")
_VARIABLES = ("RUNS_DIR", "ARTIFACT_URI", "XDG_CACHE_HOME", "XDG_DATA_HOME", "HF_HOME")
_OF_PROGRAMS = (Path("/var"), Path("/run"))
_OF_ALL = (Path("/var/tmp"), Path("/run/media"))  # noqa: S108 (disks that a user plugs in)


def folders_of_files(composed: Composed) -> Iterator[Problem]:
    """A problem for each such folder that a recipe file names."""
    values, refused = dict(flatten(composed.values)), list[Path]()
    allowed = list(_allowed(composed, values))
    for key in dict.fromkeys((*_KEYS, *extension().stores)):
        value = values.get(key)
        if not isinstance(value, str) or "://" in value or composed.is_given(key):
            continue
        with suppress(RuntimeError, ValueError):  # no such user's home, and a NUL, which other rules tell
            path = Path(value).expanduser().absolute()
            home = path / str(values.get("name", "")) if key == "storage.root" else path  # of the recipe's runs
            why = _kept_for_others(path, allowed) or _kept_for_others(path.resolve(), allowed)
            why = why or _kept_for_others(home.resolve(), allowed)
            if why and not any(map(path.is_relative_to, refused)):  # the store follows the root
                refused.append(path)
                yield Problem(key, value, why, _hint(key, value), composed.origin(key))


def _hint(key: str, value: str) -> str:
    return (
        f"Name a folder of its own, or give it on the command line ({key}=..., or --allow {value}), or write "
        f"`allow: [{value}]` in {SETTINGS_FILE}."
    )


def _kept_for_others(path: Path, allowed: list[Path]) -> str:
    """What else the folder is kept for, or ""."""
    above = max((each for each in allowed if path.is_relative_to(each)), key=lambda each: len(each.parts), default=None)
    if above is None and any(map(path.is_relative_to, _OF_PROGRAMS)):
        return "is in a folder where programs of this machine keep their state, which a recipe file may not name"
    parts = path.relative_to(above).parts if above is not None else path.parts
    if hidden := next((part for part in parts if part.startswith(".") and part != ".."), None):
        return f"is in {hidden}, a folder that another program keeps, which a recipe file may not name"
    return ""


def _allowed(composed: Composed, values: dict[str, object]) -> Iterator[Path]:
    """Folders below which only a hidden one is another's."""
    named = [*_DATA, tempfile.gettempdir(), *composed.allowed, *(os.environ.get(name, "") for name in _VARIABLES)]
    if composed.is_given("storage.root"):
        named.append(str(values.get("storage.root", "")))
    for place in named:
        if place and "://" not in place:
            with suppress(RuntimeError):
                path = Path(place).expanduser().absolute()
                yield from (path, path.resolve())
    yield from (*(each for each in (Path.cwd(), Path.cwd().resolve()) if each.name), *_OF_ALL, *known_roots())
