"""What a recipe may say to Hydra itself: how a sweep goes, and nothing that imports, runs or redirects.

Hydra makes objects of the `_target_`s below its own key `hydra`, sets up logging by class names, and imports the
packages of its search path. A recipe file can write there, because it is composed at the root.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from runner.errors import Problem
from runner.patches import hydra_classes

_TARGET = "_target_"
_OPTUNA = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"
_CLASSES = {  # of each place below hydra: the objects that may be made there, by their whole names
    f"hydra.launcher.{_TARGET}": re.compile(re.escape(hydra_classes.LAUNCHER)),
    f"hydra.sweeper.{_TARGET}": re.compile(f"{re.escape(hydra_classes.GRID_SWEEPER)}|{re.escape(_OPTUNA)}"),
    f"hydra.sweeper.sampler.{_TARGET}": re.compile(r"optuna\.samplers\.[A-Za-z]+Sampler"),
}
# What a file says to a sweeper. Optuna's other keys name a database (storage) or a function (custom_search_space).
_SWEEPER = (
    "_target_", "params", "max_batch_size", "direction", "n_trials", "n_jobs", "max_failure_rate", "sampler",
    "study_name",
)  # fmt: skip
_SWEEPER_GIVEN = ("hydra.sweeper.storage",)  # what the command line may say besides
_STEERED = ("hydra.verbose", "hydra.mode", "hydra.sweeper", "hydra/sweeper", "hydra.launcher", "hydra/launcher")
_FIXED: Mapping[str, Any] = {
    "run": {"dir": "."},
    "callbacks": {},
    "output_subdir": None,
    "job_logging": {"version": 1, "root": None, "disable_existing_loggers": False},
    "env": {},
    "sweep": {"dir": "${storage.root}/sweeps/${now:%Y%m%d-%H%M%S}", "subdir": "."},
}
_FIXED_JOB: Mapping[str, Any] = {"chdir": None, "env_set": {}, "env_copy": []}
_HINT = "Remove it: a recipe says nothing to Hydra but how to sweep (hydra.sweeper, hydra.launcher)."


def refused_overrides(keys: Iterator[str]) -> Iterator[Problem]:
    """Overrides of Hydra's own keys that would have it import or run something. keys: as on the command line."""
    for key in keys:
        if key.startswith("hydra") and not key.startswith(_STEERED):
            hint = "Add recipes of your own with --config-dir DIR." if key == "hydra.searchpath" else _HINT
            yield Problem(key, None, "is Hydra's own and not for a command line", hint, "command line")


def refused_values(hydra: Mapping[str, Any], searchpath: list[str], given: Collection[str]) -> Iterator[Problem]:
    """Values below `hydra` that files of the recipe have changed, and classes that are not Hydra's or its plugins'.

    hydra: plain values, not resolved. searchpath: what it must be. given: keys that the command line sets.
    """
    changed = {name: hydra.get(name) for name, value in _FIXED.items() if hydra.get(name) != value}
    changed |= {
        f"job.{name}": hydra["job"].get(name) for name, value in _FIXED_JOB.items() if hydra["job"][name] != value
    }
    if list(hydra.get("searchpath") or []) != searchpath:
        changed["searchpath"] = hydra.get("searchpath")
    for name in changed:
        yield Problem(f"hydra.{name}", None, "is changed by a recipe file", _HINT)
    for name, value in hydra["sweeper"].items():
        key = f"hydra.sweeper.{name}"
        if name not in _SWEEPER and value is not None and not (key in given and key in _SWEEPER_GIVEN):
            message = f"is not for a recipe; a sweeper takes: {', '.join(_SWEEPER[1:])}"
            yield Problem(key, value, message, _HINT)
    for dotted, name, value in _leaves(hydra, "hydra"):
        if name == "_target_" and not (dotted in _CLASSES and _CLASSES[dotted].fullmatch(str(value))):
            yield Problem(
                dotted, value, "is not a class of Hydra or Optuna for that place: recipes carry no code", _HINT
            )
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
