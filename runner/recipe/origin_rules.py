"""What only the command line or the user's own settings file may say, and a recipe file may not.

A recipe is data that may come from a stranger: it chooses no verb and no option of a run, names no variable of the
environment that leaves this machine, no host or bucket that is sent anything, and no file of keys that others may know,
but where the user allows the place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from runner.errors import Problem
from runner.recipe.extension import extension
from runner.recipe.grants import GRANTS
from runner.recipe.hydra.compose import Composed
from runner.recipe.places import OWN_FOLDERS, STORE_VARIABLE, is_allowed, is_here, is_kept_by_user, is_own_store
from runner.recipe.schema import RunOptions

SETTINGS_FILE = "~/.config/recipe-runner/settings.yaml"
_HERE = ("auto", "local")  # addresses of Ray that look on this machine alone
_VERB = "action"
_STORES = {"storage.artifacts": "sends artifacts and results to another host"}
_HOSTS = {
    "submit.env": "sends variables of your environment to a cluster",
    "cluster.address": "sends the run to another host",
    "storage.endpoint_url": "sends artifacts, signed by your credentials, to another host",
}


def misplaced(composed: Composed) -> Iterator[Problem]:
    """A problem for each such value that comes from a recipe file."""
    for key in (_VERB, *RunOptions.model_fields):  # grants have a rule of their own
        if key not in GRANTS and key in composed.values and not composed.is_given(key):
            what = "chooses a verb" if key == _VERB else "is an option of the command line"
            message = f"{what}, which a recipe file may not set"
            hint = f"Remove it, and give it on the command line: {_example(key, composed.values[key])}"
            yield Problem(key, composed.values[key], message, hint, composed.origin(key))
    for key, what in leaving().items():
        value = _at(composed.values, key)
        if value and not composed.is_given(key) and not _may_be_named(key, value, composed):
            yield Problem(
                key, value, f"{what}, which a recipe file may not say", _hint(key, value), composed.origin(key)
            )
    for key, what in extension().secrets.items():
        value = _at(composed.values, key)
        if isinstance(value, str) and not composed.is_given(key) and not is_kept_by_user(value, composed.allowed):
            hint = (
                f"If nobody else knows its content, give {key}=... on the command line, or write `allow: "
                f"[{_shown(value)}]` in {SETTINGS_FILE}, or keep it in {' or '.join(OWN_FOLDERS)}."
            )
            yield Problem(key, value, f"{what}, which a recipe file may not say", hint, composed.origin(key))
    yield from _swept(composed)


def leaving() -> dict[str, str]:
    """Keys by which something leaves this machine, and what does."""
    return {**_HOSTS, **_STORES, **extension().hosts, **extension().stores}


def _swept(composed: Composed) -> Iterator[Problem]:
    """Keys of `hydra.sweeper.params` in a file: the sweeper gives them to jobs as a command line would."""
    for text in composed.swept:
        key = text.lstrip("+~").partition("@")[0]
        own = key in (_VERB, *RunOptions.model_fields) or key.partition(".")[0] in ("hydra", "storage")
        users = (*leaving(), *extension().secrets)
        if own or any(each == key or each.startswith(f"{key}.") for each in users):
            hint = f"Remove it, and sweep it on the command line: -m {key}=A,B"
            message = "is for the command line to say, and a recipe file sweeps it"
            yield Problem(f"hydra.sweeper.params.{text}", None, message, hint, composed.origin("hydra.sweeper.params"))


def _may_be_named(key: str, value: Any, composed: Composed) -> bool:
    """Whether nothing leaves this machine by it, or the user allows the place."""
    if key == "submit.env" or not isinstance(value, str):
        return False
    if is_allowed(value, composed.allowed) or extension().is_public(key, composed.values):
        return True
    if key in _HOSTS or key in extension().hosts:
        return is_here(value) or (key == "cluster.address" and value in (*_HERE, os.environ.get("RAY_ADDRESS")))
    return "://" not in value or is_own_store(value)


def _hint(key: str, value: Any) -> str:
    if key == "submit.env":
        return f"Remove it; give it on the command line, {key}={_shown(value)}, or in {SETTINGS_FILE}."
    hint = f"If it is yours, write `allow: [{_shown(value)}]` in {SETTINGS_FILE}, or give {key}=... on the command line"
    stores = key in _STORES or key in extension().stores
    return f"{hint}, or set {STORE_VARIABLE} and use storage=s3." if stores else f"{hint}."


def _at(values: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _example(key: str, value: Any) -> str:
    return f"python -m runner {value} recipe=..." if key == _VERB else f"{key}={_shown(value)}"


def _shown(value: Any) -> str:
    text = f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)
    return text if re.fullmatch(r"[\w.,:/\[\]-]+", text) else "..."
