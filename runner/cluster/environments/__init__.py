"""Environments of their own for tools that cannot share the runner's packages.

Each is a folder with an interpreter, made from a lock by `make env NAME=...`, at the same path on every node. Its
record is written last, so that a folder without one is not used. Only standard modules are imported here, because
`plan` reads records.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from runner.storage.atomic import indented, read_state, sealed

HOME = "RECIPE_RUNNER_ENVIRONMENTS"
MAKE = "RECIPE_RUNNER_MAKE_ENVIRONMENTS"  # 1: a stage makes what it needs, on every node
RECORD = "environment.json"
_CHECKOUT = Path(__file__).resolve().parents[3]
_PLACES = (_CHECKOUT / "requirements" / "environments", Path(sys.prefix, "share", "recipe-runner", "environments"))
LOCKS = next((place for place in _PLACES if place.is_dir()), _PLACES[0])  # a checkout's, or what a wheel has put there
# Fields of a runtime environment that say themselves which packages or interpreter a worker has.
PACKAGES = ("pip", "uv", "conda", "py_executable", "image_uri", "container")
_METADATA = ".dist-info"
_SHARED = "ray"  # of one version in all environments of a cluster


@dataclass(frozen=True)
class Record:
    """What an environment holds. lock_sha256: of the lock that it was made from. python: its version, such as 3.11.9.

    distributions: version by normalised name, as the lock has them.
    """

    name: str
    lock: str
    lock_sha256: str
    python: str
    distributions: Mapping[str, str]

    def text(self) -> str:
        """Of its file, with a seal."""
        return indented(sealed(asdict(self)))


@dataclass(frozen=True)
class Chosen:
    """An environment that a stage runs in. key: of the recipe that chose it, with its value."""

    name: str
    key: str
    value: Any = None


def home() -> Path:
    """The folder of all environments: the operator's variable, or `environments` in the runner's own."""
    return Path(os.environ.get(HOME) or Path(sys.prefix, "environments")).expanduser().absolute()


def folder(name: str) -> Path:
    return home() / name


def python(name: str) -> Path:
    """The environment's interpreter."""
    return folder(name) / "bin" / "python"


def packages(name: str | None) -> list[str]:
    """Folders in which the environment's packages are; None: the runner's own."""
    return [str(path) for path in folder(name).glob("lib/python*/site-packages")] if name else list(sys.path)


def may_be_made() -> bool:
    """Whether the operator lets a run make the environments that it needs."""
    return os.environ.get(MAKE) == "1"


def runtime_env(name: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Ray's runtime environment of workers: what the recipe gives, in the named environment; None: the runner's own."""
    return {**given, "py_executable": str(python(name))} if name else dict(given)


def with_variables(given: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, Any]:
    """What a recipe gives as Ray's runtime environment, with variables that it may override."""
    return {**given, "env_vars": {**variables, **given.get("env_vars", {})}}


def record(name: str) -> Record | None:
    """The record of the environment on this machine, None where it is not made, or its record is damaged, another's, or
    of other versions than are there."""
    own = folder(name)
    try:
        found = Record(**read_state(own / RECORD))
    except (OSError, RunnerError, TypeError):
        return None
    true = found.name == name and found.distributions.items() <= there(name).items()
    return found if true and os.access(own / "bin" / "python", os.X_OK) else None


def there(name: str) -> dict[str, str]:
    """Versions by normalised name of what is installed in the environment, by the names of its folders alone."""
    found = (
        path.name.removesuffix(_METADATA) for place in packages(name) for path in Path(place).glob(f"*{_METADATA}")
    )
    return {normalised(each): version for each, _, version in (name.partition("-") for name in found)}


def normalised(distribution: str) -> str:
    """A distribution's name as records and locks are compared by it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def lock_file(name: str, accelerator: str) -> Path:
    """The lock of the environment for an accelerator (cpu or gpu)."""
    return LOCKS / f"{name}-{accelerator}.lock"


def held(name: str, accelerator: str) -> Record | None:
    """What the environment holds, or will hold when it is made for the accelerator: by its record, else by its lock.

    An environment that this machine has for another accelerator tells nothing about it.
    """
    path, found = lock_file(name, accelerator), record(name)
    if path.is_file() and (found is None or found.lock != path.name):
        return _locked(name, path, path.stat().st_mtime_ns)
    return found


@lru_cache
def _locked(name: str, path: Path, changed_at: int) -> Record:
    return Record(name, path.name, digest(path), "", pinned(path.read_text(encoding="utf-8").splitlines()))


def pinned(lines: Iterable[str]) -> dict[str, str]:
    """Versions by name of the lines `name==version` of a lock."""
    pairs = (line.split(";")[0].strip().split("==") for line in lines if "==" in line and line[:1] not in "#-")
    return {normalised(name): version for name, version in pairs}


def digest(lock: Path) -> str:
    return sha256(lock.read_bytes()).hexdigest()


def version(name: str, distribution: str, accelerator: str) -> str | None:
    """Version of a distribution in the environment; None where it has none of it, or nothing is known of it."""
    known = held(name, accelerator)
    return known.distributions.get(normalised(distribution)) if known else None


def versions(name: str, distributions: Iterable[str], accelerator: str) -> dict[str, str | None]:
    """For a fingerprint: the versions of the distributions, and the digest of the lock as `environment NAME`."""
    known = held(name, accelerator)
    return {
        **{each: version(name, each, accelerator) for each in distributions},
        f"environment {name}": known.lock_sha256 if known else None,
    }


def command(name: str, accelerator: str) -> str:
    """What makes the environment: in a checkout by its Makefile."""
    if (_CHECKOUT / "Makefile").is_file():
        return f"make env NAME={name}" + (f" ACCELERATOR={accelerator}" if accelerator != "cpu" else "")
    return f"python -m runner.cluster.environments.build {name} --accelerator {accelerator}"


def unusable(name: str, accelerator: str) -> str:
    """Why the environment on this machine cannot be used as it is, "" where it can."""
    found, lock = record(name), lock_file(name, accelerator)
    if found is None:
        damaged = (
            f", or its {RECORD} is damaged or of other packages than are there"
            if (folder(name) / RECORD).exists()
            else ""
        )
        return f"is not made: {folder(name)} holds no complete one{damaged}"
    if lock.is_file() and found.lock_sha256 != digest(lock):
        return f"was made from another lock than {lock.name} is now"
    return other_than_here(found)


def other_than_here(found: Record) -> str:
    """Ray refuses workers of another Python or of another Ray, minutes later and in other words."""
    own = ".".join(map(str, sys.version_info[:3]))
    if found.python != own:
        return f"has Python {found.python}, and the runner has {own}"
    try:
        ray = installed_version(_SHARED)
    except PackageNotFoundError:
        return ""
    other = found.distributions.get(_SHARED)
    return "" if other == ray else f"has Ray {other}, and the runner has {ray}"
