"""From composed values to a typed `Recipe`, with every problem that the schema finds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from runner.errors import Problem, RecipeError, nearest
from runner.recipe.extension import extension, recipe_class
from runner.recipe.grants import GRANTS, granted_by_files
from runner.recipe.hydra.compose import Composed as Composed
from runner.recipe.hydra.compose import compose as compose
from runner.recipe.hydra.folders import RECIPES_DIR as RECIPES_DIR
from runner.recipe.origin_rules import misplaced
from runner.recipe.schema import Recipe, RunOptions
from runner.recipe.secrets import REDACTED, place_of_keys, secrets_in
from runner.recipe.secrets import redact as redact
from runner.recipe.valid_parts import field_path, partial_recipe, section_fields
from runner.recipe.valid_parts import section_of as section_of

_PATHS = {"root", "cache", "artifacts", "source", "storage_path", "chat_template", "file", "export_to"}
_CODE_KEY = re.compile(r"^_\w+_$")
# pydantic's errors about a value of the wrong kind, in the words that `runner.recipe.arguments` uses.
_MUST = "must be "
_UNKNOWN = "is not a known key"
_KINDS = {
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "must be a mapping"),
    "list_type": "must be a list",
    "string_type": "must be a text",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
}


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
    problems = [*composed.problems, *_forbidden(composed), *misplaced(composed), *_unknown_homes(composed)]
    bad = {problem.key for problem in problems}
    options_values = {key: composed.values[key] for key in RunOptions.model_fields if key in composed.values}
    values = {key: value for key, value in composed.values.items() if key not in RunOptions.model_fields}
    extension().complete(values)
    recipe = _validate(recipe_class(), values, composed, problems, bad)
    options = _validate(RunOptions, options_values, composed, problems, bad)
    if recipe is None or problems:
        recipe = partial_recipe(values, {problem.key for problem in problems})
    return Parsed(recipe, options, problems)


def _unknown_homes(composed: Composed) -> Iterator[Problem]:
    """Paths that begin with ~USER of a user that this machine does not have."""
    for key, value in flatten(composed.values):
        if isinstance(value, str) and value.startswith("~") and key.rpartition(".")[2] in _PATHS:
            try:
                Path(value).expanduser()
            except RuntimeError:
                message, hint = (
                    "begins with the home of a user that this machine does not have",
                    "Write the whole path.",
                )
                yield Problem(key, value, message, hint, composed.origin(key))


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
    unknown = [each for each in parse(composed).problems if each.message.startswith(_UNKNOWN)]
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
        if any(isinstance(item, float) and not math.isfinite(item) for item in _items(value)):
            hint = "Write a number."
            problems.append(Problem(dotted, value, "must be a finite number", hint, composed.origin(dotted)))
        if any(isinstance(item, str) and "\0" in item for item in _items(value)):
            hint = "Remove it: no path and no text has one."
            problems.append(Problem(dotted, value, "has a NUL character", hint, composed.origin(dotted)))
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
        for key, item in _errors(model, error):
            if key not in bad:
                problems.append(_schema_problem(model, key, item, composed.origin(key), ""))
        return None


def _errors(model: type[BaseModel], error: ValidationError) -> Iterator[tuple[str, Any]]:
    """Key and error of each value. One that is none of several kinds has one error, which names them all."""
    found: dict[str, list[Any]] = {}
    for item in error.errors():
        whole = field_path(model, item["loc"])
        found.setdefault(_dotted(whole), []).append(item)
    for key, items in found.items():
        kinds = list(dict.fromkeys(map(_kind, items)))
        same = all(kind.startswith(_MUST) for kind in kinds)
        text = _MUST + " or ".join(kind.removeprefix(_MUST) for kind in kinds) if same else ", or ".join(kinds)
        yield key, items[0] if len(items) == 1 else {**items[0], "type": "", "msg": text}


def _kind(item: Any) -> str:
    return _KINDS.get(item["type"]) or str(item["msg"][0].lower() + item["msg"][1:])


def _dotted(loc: tuple[int | str, ...]) -> str:
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return key.removeprefix(".")


def settings_problems(model: type[BaseModel], values: Any, section: str) -> list[Problem]:
    """What the model says against the values of a section that the recipe's own schema does not describe."""
    try:
        model.model_validate(values)
    except ValidationError as error:
        return [_schema_problem(model, key, item, "", f"{section}.") for key, item in _errors(model, error)]
    return []


def _schema_problem(model: type[BaseModel], key: str, item: Any, origin: str, prefix: str) -> Problem:
    """key: below the model; prefix: of the model's section in the recipe, with its dot, or ""."""
    parent, _, name = key.rpartition(".")
    value = None if item["type"] == "missing" else item["input"]
    if item["type"] == "extra_forbidden":
        legal = set(section_fields(model, parent))
        if not prefix and not parent:
            legal |= set(RunOptions.model_fields)
        section = f"{prefix}{parent}".rstrip(".")
        guess = nearest(name, legal)
        return Problem(
            f"{prefix}{key}",
            value,
            f"{_UNKNOWN}; {section or 'a recipe'} takes: {', '.join(sorted(legal))}",
            f"Did you mean {f'{section}.{guess}' if section else guess}?" if guess else "Remove it.",
            origin,
        )
    if item["type"] == "missing":
        return Problem(
            f"{prefix}{key}", None, "is required and was not given", _how_to_give(model, key, prefix), origin
        )
    return Problem(f"{prefix}{key}", value, _kind(item), field_description(model, key), origin)


def _how_to_give(model: type[BaseModel], key: str, prefix: str) -> str:
    parent, _, name = key.rpartition(".")
    section = section_of(section_fields(model, parent)[name].annotation)
    if section is None or prefix:
        return f"Add {prefix}{key}=..."
    required = [f"{key}.{each}=..." for each, field in section.model_fields.items() if field.is_required()]
    return f"Add {' '.join(required)}, or choose a variant, {key}=NAME: `python -m runner list` has their names."


def field_description(model: type[BaseModel], dotted: str) -> str:
    """Description of the field at the dotted key, or ""."""
    parent, _, name = dotted.rpartition(".")
    info = section_fields(model, parent).get(name)
    return (info.description or "") if info is not None else ""
