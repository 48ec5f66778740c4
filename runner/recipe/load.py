"""From composed values to a typed `Recipe`, with every problem that the schema finds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from runner.errors import Problem, RecipeError
from runner.recipe.extension import extension, recipe_class
from runner.recipe.grants import GRANTS, granted_by_files
from runner.recipe.hydra.compose import Composed as Composed
from runner.recipe.hydra.compose import compose as compose
from runner.recipe.hydra.folders import RECIPES_DIR as RECIPES_DIR
from runner.recipe.origin_rules import misplaced
from runner.recipe.schema import Recipe, RunOptions
from runner.recipe.schema_problems import UNKNOWN, errors_by_key, schema_problem
from runner.recipe.secrets import REDACTED, place_of_keys, secrets_in
from runner.recipe.secrets import redact as redact
from runner.recipe.valid_parts import partial_recipe
from runner.recipe.valid_parts import section_of as section_of

_PATHS = {"root", "cache", "artifacts", "source", "storage_path", "chat_template", "file", "export_to"}
_READ_BY_RULES = {"chat_template", "file"}  # which say themselves why they cannot be read
_LARGEST = 2**53
_CODE_KEY = re.compile(r"^_\w+_$")


@dataclass(frozen=True)
class Parsed:
    """What the schema says of a composed configuration.

    recipe: whole when there are no problems; else what can be read of it. options: None when they are wrong.
    """

    recipe: Recipe
    options: RunOptions | None
    problems: list[Problem]


def parse(composed: Composed) -> Parsed:
    """Check the values against the schema, and collect every problem found."""
    problems = [*composed.problems, *_forbidden(composed), *misplaced(composed), *_odd_paths(composed)]
    bad = {problem.key for problem in problems}
    options_values = {key: composed.values[key] for key in RunOptions.model_fields if key in composed.values}
    values = {key: value for key, value in composed.values.items() if key not in RunOptions.model_fields}
    extension().complete(values)
    recipe = _validate(recipe_class(), values, composed, problems, bad)
    options = _validate(RunOptions, options_values, composed, problems, bad)
    if recipe is None or problems:
        recipe = partial_recipe(values, {problem.key for problem in problems})
    return Parsed(recipe, options, problems)


def _odd_paths(composed: Composed) -> Iterator[Problem]:
    """Paths that the system refuses or whose beginning a shell would have replaced, and addresses with a single slash:
    folders would be made."""
    for key, value in flatten(composed.values):
        name = key.rpartition(".")[2]
        if isinstance(value, str) and name in _PATHS and (found := _odd_path(value, name in _READ_BY_RULES)):
            yield Problem(key, value, *found, composed.origin(key))


def _odd_path(path: str, is_read: bool) -> tuple[str, str] | None:
    """What is wrong with the path, and what to write. is_read: a rule reads it."""
    try:
        there = Path(path).expanduser().exists()
    except RuntimeError:
        return "begins with the home of a user that this machine does not have", "Write the whole path."
    except OSError as error:  # longer than a path may be, or in a folder of another user
        reason = f"cannot be looked at: {(error.strerror or str(error)).lower()}"
        return None if is_read or "://" in path else (reason, "Name another path.")
    except ValueError:  # a NUL or half of a character, which has a problem of its own
        return None
    if not is_read and not path.isprintable():
        return "has a character that cannot be seen", "Name another path."
    if not there and (variable := re.search(r"(?:^|/)\$(\w+)", path)):
        return (
            f"has ${variable[1]}, which is a shell's to replace",
            "Write the path itself, or begin it with ~ or a folder.",
        )
    if not there and (scheme := re.match(r"([A-Za-z][A-Za-z0-9+]+):/(?!/)", path)):
        return f"has one / behind {scheme[1]}:", f"Write {scheme[1]}://{path[scheme.end() :]}."
    return None


def to_recipe(composed: Composed) -> tuple[Recipe, RunOptions]:
    """The recipe and the options. Raises RecipeError with every problem that the schema finds."""
    parsed = parse(composed)
    if parsed.problems or parsed.options is None:
        raise RecipeError(parsed.problems)
    return parsed.recipe, parsed.options


def to_options(composed: Composed) -> RunOptions:
    """The options alone, of a verb that needs no recipe.

    Raises RecipeError with what is wrong with them, and with keys of the command line that nothing has.
    """
    values = {key: composed.values[key] for key in RunOptions.model_fields if key in composed.values}
    unknown = [each for each in parse(composed).problems if each.message.startswith(UNKNOWN)]
    problems = [*misplaced(composed), *(each for each in unknown if _is_given(each.key, composed.given))]
    options = _validate(RunOptions, values, composed, problems, {problem.key for problem in problems})
    if problems:
        raise RecipeError(problems)
    assert isinstance(options, RunOptions)
    return options


def _is_given(key: str, given: set[str]) -> bool:
    """Whether the key is given, or one below it."""
    return any(f"{each}.".startswith(f"{key}.") for each in given)


def recipe_roots(config_dir: Path | None) -> list[Path]:
    """Folders of recipes and group variants: the shipped one, and the user's."""
    return [RECIPES_DIR, *([config_dir] if config_dir else [])]


def flatten(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf; a list is a leaf, an empty mapping too."""
    if isinstance(values, dict) and (values or not prefix):
        for key, value in values.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, values


def _forbidden(composed: Composed) -> list[Problem]:
    problems = [
        Problem(
            key,
            composed.values.get(key),
            "is for who runs the recipe to say, not for a recipe file",
            f"Remove it; the command line has {GRANTS[key]} for it.",
            composed.origin(key),
        )
        for key in granted_by_files(composed.values, composed.overrides)
    ]
    for dotted, value in flatten(composed.values):
        if found := next((found for item in (dotted, *_items(value)) if (found := _unusable(item))), None):
            problems.append(Problem(dotted, value, *found, composed.origin(dotted)))
        for part in dotted.split("."):
            if _CODE_KEY.match(part):
                hint = "Remove it. A stage of your own is added as a package with an entry point."
                problems.append(
                    Problem(
                        dotted, value, f"{part} is not allowed: recipes carry no code", hint, composed.origin(dotted)
                    )
                )
    for dotted in secrets_in(composed.values):
        hint = "Remove it; credentials come from boto3's and the hub's own chains (environment, files, roles)."
        if place := place_of_keys(dotted):
            hint = f"Remove it; {place}.file and {place}.env say where the keys are."
        problems.append(Problem(dotted, REDACTED, "looks like a secret", hint, composed.origin(dotted)))
    return problems


def _unusable(item: Any) -> tuple[str, str] | None:
    """Why no key takes the value, whatever it is for, and what to write."""
    if isinstance(item, int | float) and not isinstance(item, bool):
        if isinstance(item, float) and not math.isfinite(item):
            return "must be a finite number", "Write a number."
        if abs(item) > _LARGEST:
            return f"is a number beyond {_LARGEST:,}, where they are not exact", "Write a smaller one."
    if isinstance(item, str):
        if "\0" in item:
            return "has a NUL character", "Remove it: no path and no text has one."
        if any("\ud800" <= char <= "\udfff" for char in item):
            return "has half of a character, which no file can hold", "Write the character itself."
    return None


def _items(value: Any) -> Iterator[Any]:
    """The value, or those of a list at any depth."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _items(item)
    elif isinstance(value, dict):
        yield from _items(list(value.values()))
    else:
        yield value


def _validate(
    model: type[BaseModel], values: dict[str, Any], composed: Composed, problems: list[Problem], bad: set[str]
) -> Any:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        for key, item in errors_by_key(model, error):
            if key not in bad:
                problems.append(schema_problem(model, key, item, composed.origin(key), ""))
        return None
