"""What only who runs a recipe may grant it: trust in harmful keys, variables of the environment, places to send to.

They come from the command line (`--trust`, `--allow-env`, `--allow`), places from the user's settings file too. They
travel as overrides, so that the jobs of a sweep and a submitted job have them too; a recipe file that names them is
refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from runner.errors import Problem, RecipeError
from runner.recipe.hydra.overrides import parsed
from runner.recipe.secrets import names_secret

GRANTS = {"trust": "--trust", "allow_env": "--allow-env", "allow": "--allow"}
READABLE = ("ARTIFACT_URI", "RUNS_DIR", "RAY_ADDRESS", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "AWS_REGION")
_READABLE_PREFIX = "RECIPE_"
_NAME = re.compile(r"[\w.\[\]-]+")
_PLACE = re.compile(r"[\w.:/~\[\]%+-]+")


def as_overrides(given: Mapping[str, Iterable[str]], origin: str = "command line") -> list[str]:
    """The options' values as overrides. given: of each key of GRANTS, the option's values, separated by commas.

    Raises RecipeError for what cannot be a key or the name of a variable.
    """
    overrides = []
    for key, texts in given.items():
        names = [name.strip() for text in texts for name in text.split(",") if name.strip()]
        fits = _PLACE if key == "allow" else _NAME
        if wrong := [name for name in names if not fits.fullmatch(name)]:
            message = f"cannot be a name of {GRANTS[key]}"
            raise RecipeError([Problem(key, wrong[0], message, "Write names separated by commas.", origin)])
        if names:
            overrides.append(f"{key}=[{','.join(repr(name) for name in names)}]")
    return overrides


def granted(overrides: Sequence[str], key: str) -> list[str]:
    """What the command line grants. overrides: as given; the last one of the key counts."""
    found: list[str] = []
    for override in parsed(overrides):
        if override.get_key_element().lstrip("+~") == key:
            found = _names(override.value())
    return found


def granted_by_files(values: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """Keys of GRANTS that a recipe file sets: their values are not those of the command line."""
    return [key for key in GRANTS if _names(values.get(key, [])) != granted(overrides, key)]


def _names(value: Any) -> list[str]:
    """The names that a value gives, which need not be a list."""
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def is_readable(variable: str, allowed: Iterable[str]) -> bool:
    """Whether a recipe may read the environment variable. allowed: those that the command line names."""
    own = variable in READABLE or variable.startswith(_READABLE_PREFIX) or variable in allowed
    return own and not names_secret(variable)
