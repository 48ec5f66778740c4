"""What a result depends on besides the recipe's own values: files that arguments name, and workers' environments.

An argument that the reviewed lists call harmless names no file (see `runner.recipe.arguments.marks`). Every other text
in a pass-through mapping, which only the command line's trust lets stand, counts with the content behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.pipeline.members import concerning
from runner.pipeline.registry import mappings
from runner.pipeline.stage import Stage
from runner.recipe.arguments.mapped import RUNTIME_ENV, Mapped
from runner.recipe.arguments.marks import harmful
from runner.recipe.schema import Recipe
from runner.storage.content import file_state, folder_state

# Words of variables that say how a worker is watched, and change nothing that it computes.
_WATCHING = {"LOG", "LOGS", "LOGGING", "DEBUG", "VERBOSITY", "PROGRESS", "TIMEOUT", "TELEMETRY", "COLOR", "STACKTRACES"}


def files_behind(stage: Stage, recipe: Recipe) -> dict[str, Any]:
    """Dotted key -> content of the files and folders that values of the stage's pass-through mappings name."""
    wanted = [mapped for mapped in concerning(recipe, mappings()) if _is_read(stage, mapped.key)]
    found: dict[str, Any] = {}
    for mapped in wanted:
        found |= dict(_behind(mapped, mapped.key, mapped.read(recipe)))
    own = recipe.resources.get(stage.name)
    return found | (dict(_behind(RUNTIME_ENV, _environment_key(stage), own.runtime_env)) if own else {})


def environment(stage: Stage, recipe: Recipe) -> dict[str, Any]:
    """The runtime environment of the stage's workers by its key, as far as it may change a result; {} without one."""
    own = recipe.resources.get(stage.name)
    if own is None or not own.runtime_env:
        return {}
    kept = {name: value for name, value in own.runtime_env.items() if name not in ("env_vars", "config")}
    variables = own.runtime_env.get("env_vars") or {}
    if acting := {name: value for name, value in variables.items() if not _WATCHING & set(name.split("_"))}:
        kept["env_vars"] = acting
    return {_environment_key(stage): kept} if kept else {}


def _environment_key(stage: Stage) -> str:
    return f"resources.{stage.name}.runtime_env"


def _is_read(stage: Stage, key: str) -> bool:
    return any(f"{key}.".startswith(f"{read}.") or read.startswith(f"{key}.") for read in stage.reads)


def _behind(mapped: Mapped, key: str, given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for found in harmful(mapped.library, mapped.tables, given):
        contents = {text: content for text in _texts(found.value) if (content := _content(text)) is not None}
        if contents:
            yield f"{key}.{found.key}", contents


def _texts(value: Any) -> Iterator[str]:
    """Every text of the value that may be a path: whole, and the parts of lists by commas or colons."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield from {value, *(part.strip() for part in value.split(",")), *value.split(":")} - {""}


def _content(text: str) -> Any:
    """The state of the file or folder of that name, None where there is none."""
    try:
        path = Path(text).expanduser()
        return folder_state(path) if path.is_dir() else file_state(path) if path.is_file() else None
    except (OSError, RuntimeError, ValueError):  # too long for a name, no such user, a null in it
        return None
