"""Places outside this machine and files of keys, and whether the user lets recipe files name them.

The user says so by `allow` (settings file or `--allow`) and, for stores, by the variable ARTIFACT_URI. A place stands
for itself and for what is below it: `s3://ours` for `s3://ours/team`, `https://minio.ours:9000` for every path there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from runner.recipe.machine import is_loopback

STORE_VARIABLE = "ARTIFACT_URI"
OWN_FOLDERS = ("~/.config/recipe-runner", "/etc/recipe-runner")
"""Where the user and the machine's keeper alone write, and what is in no package."""


def is_here(value: str) -> bool:
    """Whether the host of an address, `host:port` or a URL, is this machine."""
    parts = _parts(value)
    return parts is not None and is_loopback(parts.hostname)


def is_allowed(value: str, allowed: Iterable[str]) -> bool:
    """Whether the place is one of those, or below one."""
    return any(_covers(place, value) for place in allowed)


def is_own_store(value: str) -> bool:
    """Whether it is the store that the user's environment names, or below it."""
    own = os.environ.get(STORE_VARIABLE, "").strip()
    return bool(own) and _covers(own, value)


def is_kept_by_user(file: str, allowed: Iterable[str]) -> bool:
    """Whether the file is in a folder of this program's own settings, or is or is below one of the allowed paths."""
    settings = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    kept = (f"{settings}/recipe-runner", *OWN_FOLDERS, *(place for place in allowed if "://" not in place))
    path = _absolute(file)
    return path is not None and any(above and path.is_relative_to(above) for above in map(_absolute, kept))


def _absolute(path: str) -> Path | None:
    """None for one that cannot be, or that leads back up."""
    with suppress(RuntimeError, ValueError):  # no such user's home
        found = Path(path).expanduser().absolute()
        return None if ".." in found.parts else found
    return None


def _covers(place: str, value: str) -> bool:
    above, below = _parts(place), _parts(value)
    if above is None or below is None or not above.netloc or ".." in below.path.split("/"):
        return False
    same = (above.scheme, above.netloc.lower()) == (below.scheme, below.netloc.lower())
    root = above.path.rstrip("/")
    return same and (below.path.rstrip("/") == root or below.path.startswith(f"{root}/"))


def _parts(value: str) -> SplitResult | None:
    try:
        parts = urlsplit(value if "://" in value else f"//{value}")
        return parts if parts.hostname else None
    except ValueError:
        return None
