"""The user's own settings: what leaves this machine and where to, which a recipe file says only where they allow it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from runner.errors import Problem, RecipeError, nearest
from runner.recipe.grants import as_overrides, granted
from runner.recipe.hydra.files import read_recipe_file
from runner.recipe.hydra.overrides import in_hydras_form, readable

ALLOW = "allow"
KEYS = ("cluster.address", "deploy.url", "submit.env", "submit.python", "submit.code", ALLOW)
VERBS = ("submit", "logs", "stop", "deploy", "rollback", "undeploy", "status")


def settings_path() -> Path:
    """`~/.config/recipe-runner/settings.yaml`, or below XDG_CONFIG_HOME."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "recipe-runner" / "settings.yaml"


def settings_for(verb: str) -> list[str]:
    """Overrides that the settings file stands for; only verbs of a cluster use them.

    Raises RecipeError naming the file for a key that it may not hold, or text that is not YAML.
    """
    if verb not in VERBS:
        return []
    return [f"{key}={in_hydras_form(value)}" for key, value in _settings().items() if key != ALLOW]


def with_allowed(overrides: list[str]) -> list[str]:
    """The overrides of any verb, with the places that the settings file allows next to those of the command line.

    Raises RecipeError as `settings_for`.
    """
    places = _settings().get(ALLOW)
    if places is None:
        return overrides
    if not isinstance(places, list) or not all(isinstance(place, str) for place in places):
        hint = "Write it so: allow: [s3://our-bucket]"
        raise RecipeError([Problem(ALLOW, places, "must be a list of places", hint, str(settings_path()))])
    mine = granted(readable(overrides), ALLOW)
    return [*overrides, *as_overrides({ALLOW: dict.fromkeys([*mine, *places])}, str(settings_path()))]


def _settings() -> dict[str, Any]:
    """Values of the settings file by dotted key; {} where there is none."""
    path = settings_path()
    if not os.path.lexists(path):
        return {}
    if not path.is_file():
        raise RecipeError([Problem("", None, "is not a file of settings", "Correct or remove it.", str(path))])
    leaves = list(_leaves(_content(path), ""))
    found = dict(leaves)
    wrong = [_unknown(key, value, path) for key, value in found.items() if key not in KEYS]
    for key in found:
        if [name for name, _ in leaves].count(key) > 1:
            wrong.append(Problem(key, None, "is given twice", "Write it once.", str(path)))
    if wrong:
        raise RecipeError(wrong)
    return found


def _content(path: Path) -> dict[str, Any]:
    text = read_recipe_file(path)
    try:
        values = yaml.safe_load(text)
        if twice := _given_twice(yaml.compose(text, yaml.SafeLoader)):
            raise RecipeError([Problem(twice, None, "is given twice", "Write it once.", str(path))])
    except yaml.YAMLError as error:
        raise RecipeError([Problem("", None, f"is not valid YAML: {error}", "Correct it.", str(path))]) from error
    if not isinstance(values, dict | None):
        raise RecipeError([Problem("", None, "must be a mapping of `key: value` lines", "Correct it.", str(path))])
    return values or {}


def _given_twice(node: yaml.Node | None) -> str:
    """The first name that a mapping has twice, "" for none: YAML's reader takes the last one."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    names = [name.value for name, _ in pairs]
    own = (name for at, name in enumerate(names) if name in names[:at])
    return next(own, "") or next(filter(None, (_given_twice(value) for _, value in pairs)), "")


def _leaves(values: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """(dotted key, value); keys may be nested or written with dots."""
    for name, value in values.items():
        key = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(value, dict):
            yield from _leaves(value, key)
        else:
            yield key, value


def _unknown(key: str, value: Any, path: Path) -> Problem:
    guess = nearest(key, KEYS)
    hint = f"Did you mean {guess}?" if guess else "Other keys belong into a recipe."
    return Problem(key, value, f"is not a setting; there are: {', '.join(KEYS)}", hint, str(path))
