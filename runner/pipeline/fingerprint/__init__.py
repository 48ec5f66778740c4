"""What a stage's result depends on, its digest, and in which points that differs from an earlier result's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from runner.cluster import environments
from runner.pipeline.fingerprint.files import environment, files_behind
from runner.pipeline.manifest import StageRecord
from runner.pipeline.optional import ChoosesLibraries, HasCanonical, OnlyChecks, environment_of, environments_of
from runner.pipeline.stage import Stage
from runner.recipe.schema import Recipe
from runner.storage.digest import digest_json

_MOST_CHANGES = 4
_MOST_SHOWN = 32
_DIGEST_SHOWN = 8
_PARTS = {"inputs": "artifact", "libraries": "library", "files": "file behind", "outside": "content behind"}


def fingerprint_inputs(stage: Stage, recipe: Recipe, inputs: dict[str, str]) -> dict[str, Any]:
    """All that a result depends on: recipe values, digests of inputs, the stage's and its libraries' versions.

    Besides these: the environment of the stage's workers, and files that its arguments name.
    inputs: digest of each artifact that the stage takes. Where the stage says what a key means to it (`canonical`),
    that stands for the key's value; what it only checks (`only_checks`) is left out.
    """
    # Without what is null, so that a key that a newer version adds changes nothing until it is used. (In pass-through
    # mappings a null is kept: there it undoes a default.)
    values = recipe.model_dump(mode="json", exclude_none=True)
    read = {key: value_at(values, key) for key in stage.reads}
    if isinstance(stage, HasCanonical):
        read |= json.loads(json.dumps(stage.canonical(recipe)))  # as a manifest will give it back
    left_out = stage.only_checks if isinstance(stage, OnlyChecks) else ()
    files = files_behind(stage, recipe)
    return {
        "version": stage.version,
        "recipe": {**read, **environment(stage, recipe)},
        "inputs": {name: digest for name, digest in sorted(inputs.items()) if name not in left_out},
        "libraries": library_versions(stage, recipe),
        **({"files": files} if files else {}),
    }


def library_versions(stage: Stage, recipe: Recipe) -> dict[str, str | None]:
    """The versions of the libraries that the stage's result depends on, in the environment that it runs in, and the
    locks of all environments that its work runs in."""
    own = stage.libraries_of(recipe) if isinstance(stage, ChoosesLibraries) else ()
    names = (*stage.libraries, *own)
    accelerator, chosen = recipe.cluster.accelerator, environment_of(stage, recipe)
    if chosen:
        found = environments.versions(chosen.name, names, accelerator)
    else:
        found = {name: library_version(name) for name in names}
    for other in environments_of(stage, recipe):
        found |= environments.versions(other.name, (), accelerator)
    return found


def fingerprint(stage: Stage, inputs: dict[str, Any]) -> str:
    """Digest of what `fingerprint_inputs` gives, independent of the order of keys."""
    return digest_json({"stage": stage.name, **inputs})


def explain(earlier: Iterable[StageRecord], inputs: dict[str, Any]) -> str:
    """Which key, artifact or version makes a stage run: compared with the earlier result that differs least.

    earlier: newest first. Short values are shown, old and new.
    """
    compared = [list(_changes(record.inputs, inputs)) for record in earlier if record.inputs]
    if not compared:
        return "never ran"
    changes = min(compared, key=len)
    if not changes:
        return "no earlier result of this can be used"
    more = f" and {len(changes) - _MOST_CHANGES} more" if len(changes) > _MOST_CHANGES else ""
    return f"changed: {', '.join(changes[:_MOST_CHANGES])}{more}"


def _changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    for key, before, after in _differences("", old.get("recipe", {}), new["recipe"]):
        yield _change_text(key, before, after)
    for part, label in _PARTS.items():
        for key, before, after in _differences("", old.get(part, {}), new.get(part, {})):
            short = slice(None) if part == "libraries" else slice(_DIGEST_SHOWN)
            before, after = (each[short] if isinstance(each, str) else each for each in (before, after))
            yield _change_text(f"{label} {key}", before, after)
    if old.get("version") != new["version"]:
        yield _change_text("the stage's version", old.get("version"), new["version"])


def _differences(prefix: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, old, new) of every value that differs between two mappings; None where there is none."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        if old != new:
            yield prefix, old, new
        return
    for name in sorted(set(old) | set(new)):
        yield from _differences(f"{prefix}.{name}" if prefix else name, old.get(name), new.get(name))


def _change_text(key: str, old: Any, new: Any) -> str:
    """`storage.root a -> b`, or only the key where a value is long."""
    shown = [each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in (old, new)]
    if any(len(text) > _MOST_SHOWN or "\n" in text for text in shown):
        return key
    return f"{key} {shown[0]} -> {shown[1]}"


def value_at(values: Any, dotted: str) -> Any:
    """The value at a dotted key of nested mappings; None where there is none."""
    for part in dotted.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


@cache
def library_version(distribution: str) -> str | None:
    """Version of an installed distribution; None where it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
