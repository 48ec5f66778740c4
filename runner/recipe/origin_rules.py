"""What only the command line or the user's own settings file may say, and a recipe file may not.

A recipe is data that may come from a stranger: it chooses no verb and no option of a run, names no variable of the
environment that leaves this machine, and no other host that is sent anything.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from runner.errors import Problem
from runner.recipe.extension import extension
from runner.recipe.grants import GRANTS
from runner.recipe.hydra.compose import Composed
from runner.recipe.machine import is_loopback
from runner.recipe.schema import RunOptions

SETTINGS_FILE = "~/.config/recipe-runner/settings.yaml"
_HERE = ("auto", "local")  # addresses of Ray that look on this machine alone
_VERB = "action"


def misplaced(composed: Composed) -> Iterator[Problem]:
    """A problem for each such value that comes from a recipe file."""
    for key in (_VERB, *RunOptions.model_fields):  # grants have a rule of their own
        if key not in GRANTS and key in composed.values and not composed.is_given(key):
            what = "chooses a verb" if key == _VERB else "is an option of the command line"
            message = f"{what}, which a recipe file may not set"
            hint = f"Remove it, and give it on the command line: {_example(key, composed.values[key])}"
            yield Problem(key, composed.values[key], message, hint, composed.origin(key))
    for key, what in {**_LEAVES_THIS_MACHINE, **extension().hosts}.items():
        value = _at(composed.values, key)
        if value and not _stays_here(key, value) and not composed.is_given(key):
            hint = f"Remove it; give it on the command line, {key}={_shown(value)}, or in {SETTINGS_FILE}."
            yield Problem(key, value, f"{what}, which a recipe file may not say", hint, composed.origin(key))


_LEAVES_THIS_MACHINE = {
    "submit.env": "sends variables of your environment to a cluster",
    "cluster.address": "sends the run to another host",
}


def _stays_here(key: str, value: Any) -> bool:
    """Whether nothing leaves this machine, or the user's own RAY_ADDRESS says where to."""
    if key == "submit.env" or not isinstance(value, str):
        return False
    if key == "cluster.address" and (value in _HERE or value == os.environ.get("RAY_ADDRESS")):
        return True
    address = value if "://" in value else f"//{value}"
    try:
        return is_loopback(urlsplit(address).hostname)
    except ValueError:
        return False


def _at(values: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _example(key: str, value: Any) -> str:
    return f"python -m runner {value} recipe=..." if key == _VERB else f"{key}={_shown(value)}"


def _shown(value: Any) -> str:
    text = f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)
    return text if re.fullmatch(r"[\w.,:/\[\]-]+", text) else "..."
