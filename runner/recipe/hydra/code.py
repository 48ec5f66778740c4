"""What a recipe may say to Hydra itself: how a sweep goes, and nothing that imports, runs or redirects.

Hydra makes objects of the `_target_`s below its own key `hydra`, sets up logging by class names, and imports the
packages of its search path. A recipe file can write there, because it is composed at the root.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runner.errors import Problem
from runner.patches import hydra_classes

_OWN_CLASSES = (hydra_classes.PLUGINS, "hydra_plugins.", "optuna.samplers.", "optuna.pruners.")
_STEERED = ("hydra.verbose", "hydra.mode", "hydra.sweeper", "hydra/sweeper", "hydra.launcher", "hydra/launcher")
_FIXED: Mapping[str, Any] = {
    "run": {"dir": "."},
    "callbacks": {},
    "output_subdir": None,
    "job_logging": {"version": 1, "root": None, "disable_existing_loggers": False},
    "env": {},
}
_FIXED_JOB: Mapping[str, Any] = {"chdir": None, "env_set": {}, "env_copy": []}
_HINT = "Remove it: a recipe says nothing to Hydra but how to sweep (hydra.sweeper, hydra.launcher)."


def refused_overrides(keys: Iterator[str]) -> Iterator[Problem]:
    """Overrides of Hydra's own keys that would have it import or run something. keys: as on the command line."""
    for key in keys:
        if key.startswith("hydra") and not key.startswith(_STEERED):
            hint = "Add recipes of your own with --config-dir DIR." if key == "hydra.searchpath" else _HINT
            yield Problem(key, None, "is Hydra's own and not for a command line", hint, "command line")


def refused_values(hydra: Mapping[str, Any], searchpath: list[str]) -> Iterator[Problem]:
    """Values below `hydra` that files of the recipe have changed, and classes that are not Hydra's or its plugins'.

    hydra: plain values, not resolved. searchpath: what it must be.
    """
    changed = {name: hydra.get(name) for name, value in _FIXED.items() if hydra.get(name) != value}
    changed |= {
        f"job.{name}": hydra["job"].get(name) for name, value in _FIXED_JOB.items() if hydra["job"][name] != value
    }
    if list(hydra.get("searchpath") or []) != searchpath:
        changed["searchpath"] = hydra.get("searchpath")
    for name in changed:
        yield Problem(f"hydra.{name}", None, "is changed by a recipe file", _HINT)
    for dotted, name, value in _leaves(hydra, "hydra"):
        if name == "_target_" and not str(value).startswith(_OWN_CLASSES):
            yield Problem(dotted, value, "is not a class of Hydra or its plugins: recipes carry no code", _HINT)
        elif dotted.startswith("hydra.hydra_logging.") and (
            name in ("()", "filename", "ext") or (name == "class" and value != "logging.StreamHandler")
        ):
            yield Problem(dotted, value, "is not for a recipe: Hydra logs to the terminal", _HINT)


def _leaves(node: Any, dotted: str, name: str = "") -> Iterator[tuple[str, str, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, f"{dotted}.{key}", str(key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _leaves(value, f"{dotted}[{index}]", name)
    else:
        yield dotted, name, node
