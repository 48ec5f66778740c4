"""What Hydra refuses to compose, in words for the person who wrote the file or the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_origin

from hydra.errors import MissingConfigException
from omegaconf import OmegaConf
from pydantic import BaseModel

from runner.errors import Problem, nearest
from runner.recipe.extension import recipe_class
from runner.recipe.hydra.folders import RECIPE, RECIPES_DIR, Folders
from runner.recipe.hydra.given import must_end_in_yaml
from runner.recipe.hydra.overrides import COMMAND_LINE, key_of, parsed
from runner.recipe.hydra.sayings import in_own_words
from runner.recipe.valid_parts import section_fields

_IN_FILE = re.compile(r"In '([^']+)': ?(.*)", re.DOTALL)
_SEVERAL = re.compile(r"(?:Ambiguous value for argument|Sweep parameters) '\+*([^'=]+)=(.*)'")
_NO_GROUP = re.compile(r"Could not override '/?([^'@]+)(@[^']*)?'")
_OVERRIDE = "In a recipe, `defaults` has lines like `- override /{group}: {name}`."


def explain(error: Exception, folders: Folders, overrides: Sequence[str] = ()) -> list[Problem]:
    """The problems behind an exception of Hydra or OmegaConf.

    folders: where recipe files come from. overrides: of the command line, as Hydra was given them.
    """
    text = folders.with_paths("; ".join(str(each) for each in (error, error.__cause__) if each))
    if isinstance(error, MissingConfigException):
        return [_missing_file(error, folders, overrides)]
    if isinstance(error, RecursionError):
        hint = "Take its own name out of its `defaults`, and write values out instead of aliases that hold themselves."
        return [Problem("", None, "a recipe file refers to itself", hint)]
    if several := _SEVERAL.search(text):
        key, value = several.groups()
        hint = f"Add -m to run once for each, write a list: {key}=[{value}], or text in quotes: '{key}=\"{value}\"'."
        return [Problem(key, value, "has several values", hint, COMMAND_LINE)]
    in_file = _IN_FILE.match(str(error))
    found = folders.find(in_file[1]) if in_file else None
    if found and (problems := list(_wrong_shapes(recipe_class(), _content(found[0]), "", found[1]))):
        return problems
    origin = found[1] if found else ""
    if no_group := _NO_GROUP.search(text):
        return [_no_group(no_group[1], folders, origin)]
    if known := in_own_words(text):
        given = known.key.startswith("~") or known.key in [key_of(each) for each in parsed(overrides)]
        return [replace(known, origin=COMMAND_LINE if given else origin or _recipe(folders, overrides))]
    return [_other(error, in_file[2] if in_file else str(error), origin)]


def _missing_file(error: MissingConfigException, folders: Folders, overrides: Sequence[str]) -> Problem:
    options = [name for name in error.options or [] if name not in dict(folders.files)]
    missing = error.missing_cfg_file or ""
    group, _, name = missing.rpartition("/") if missing.startswith("hydra/") else missing.partition("/")
    if not name:
        group, name = "config", group
    for root, _label in folders.roots:
        if (other := root / group / f"{name}.yml").is_file():
            return must_end_in_yaml(other)
    return Problem(
        group,
        name,
        f"there is no {group} {name!r}; there are: {', '.join(options) or 'none'}",
        _what_is_there(group, name, options, folders),
        _place(error, group, name, folders, overrides),
    )


def _what_is_there(group: str, name: str, options: Sequence[str], folders: Folders) -> str:
    """What to write in the place of a variant that there is not."""
    if guess := nearest(name.removesuffix(".yaml").rpartition("/")[2], options):
        return f"Did you mean {guess}?"
    inner = name.partition("/")[0].strip().removeprefix("override").strip(" /")
    if group == RECIPE and inner in folders.groups():
        return _OVERRIDE.format(group=inner, name=name.partition("/")[2] or "NAME")
    if group == RECIPE and Path(f"{name}.yaml").is_file():
        return f"Name the file with its ending: recipe={name}.yaml"
    if group == RECIPE and Path(name).is_file():
        return "A recipe is a YAML file whose name ends in .yaml."
    if neighbour := next((file for _, file in folders.files if (file.parent / f"{name}.yaml").is_file()), None):
        folder = neighbour.parent.parent if neighbour.parent.name == RECIPE else "DIR"
        how = f"--config-dir {folder} recipe={neighbour.stem}"
        return f"To include a file next to yours, have both in {folder}/recipe: {how}"
    if "source" in section_fields(recipe_class(), group) and ("/" in name or Path(name).exists()):
        return f"A variant has no / in its name. Set what it comes from: {group}.source={name}"
    return "Choose one of these, or add yours with --config-dir."


def _place(error: Exception, group: str, name: str, folders: Folders, overrides: Sequence[str]) -> str:
    """The file that names the variant, or the command line."""
    given = [each for each in parsed(overrides) if not each.is_delete()]
    if any(key_of(each) == group and str(each.value()) == name for each in given):
        return COMMAND_LINE
    in_file = _IN_FILE.match(str(error))
    found = folders.find(in_file[1]) if in_file else None
    if found and found[0].parent != RECIPES_DIR:
        return found[1]
    return _recipe(folders, overrides)


def _recipe(folders: Folders, overrides: Sequence[str]) -> str:
    """The recipe's file that the command line names; the command line where it names none."""
    given = (str(each.value()) for each in parsed(overrides) if key_of(each) == RECIPE and not each.is_delete())
    recipe = folders.find(f"{RECIPE}/{next(given, '')}")
    return recipe[1] if recipe else COMMAND_LINE


def _no_group(group: str, folders: Folders, origin: str) -> Problem:
    """A group that cannot be overridden: there is none of that name, or it is named without its slash."""
    groups, last = folders.groups(), group.removeprefix(f"{RECIPE}/")
    if last == group and last in groups:
        hint = f"Choose it on the command line: {last}=NAME."
        return Problem(last, None, "is a group that a recipe's `defaults` do not choose", hint, origin or COMMAND_LINE)
    guess = last if last in groups else nearest(last, groups)
    hint = _OVERRIDE.format(group=guess, name="NAME") if guess else "Remove that line."
    hint = f"Did you mean {guess}? {hint}" if guess and guess != last else hint
    message = f"names the group {group!r}; there are: {', '.join(groups)}"
    return Problem("defaults", None, message, hint, origin or COMMAND_LINE)


def _other(error: Exception, text: str, origin: str) -> Problem:
    cause = error.__cause__
    sentences = [line.strip().splitlines()[0] for line in (text, str(cause or "")) if line.strip()]
    message = "; ".join(sentences) or type(error).__name__
    key = str(getattr(cause, "full_key", "") or "")
    message = f"cannot be composed: {message.replace('++', '')}"
    return Problem(key, None, message, "hydra.verbose=true shows where.", origin)


def _content(file: Path) -> Any:
    return OmegaConf.to_container(OmegaConf.load(file), resolve=False)


def _wrong_shapes(annotation: Any, value: Any, key: str, origin: str) -> Iterator[Problem]:
    """Lists where the schema wants a mapping, and the other way round: these cannot be merged with what is below."""
    section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    mapping = section or get_origin(annotation) is dict
    if isinstance(value, list) and mapping:
        hint = "Write `key: value` lines below it, or {key: value}."
        yield Problem(key, value, "must be a mapping, not a list", hint, origin)
    elif isinstance(value, dict) and not mapping and get_origin(annotation) is list:
        yield Problem(
            key, value, "must be a list, not a mapping", "Write `- value` lines below it, or [value].", origin
        )
    elif isinstance(value, dict) and mapping:
        for name, item in value.items():
            info = annotation.model_fields.get(name) if section else None
            inner = (info.annotation if info else None) if section else get_args(annotation)[1]
            yield from _wrong_shapes(inner, item, f"{key}.{name}" if key else str(name), origin)
