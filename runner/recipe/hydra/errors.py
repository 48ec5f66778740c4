"""What Hydra refuses to compose, in words for the person who wrote the file or the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from hydra.errors import MissingConfigException
from omegaconf import OmegaConf
from pydantic import BaseModel

from runner.errors import Problem, nearest
from runner.recipe.extension import recipe_class
from runner.recipe.hydra.folders import RECIPE, Folders
from runner.recipe.hydra.given import must_end_in_yaml
from runner.recipe.hydra.overrides import COMMAND_LINE
from runner.recipe.valid_parts import section_fields

_IN_FILE = re.compile(r"In '([^']+)': ?(.*)", re.DOTALL)
_SEVERAL = re.compile(r"Ambiguous value for argument '\+*([^'=]+)=(.*)'")
_NO_GROUP = re.compile(r"Could not override '/?(\w+)")


def explain(error: Exception, folders: Folders) -> list[Problem]:
    """The problems behind an exception of Hydra or OmegaConf. folders: where recipe files come from."""
    text = str(error)
    if isinstance(error, MissingConfigException):
        return [_missing_file(error, folders)]
    if isinstance(error, RecursionError):
        return [Problem("", None, "a recipe file refers to itself", "Write the value out instead of a YAML alias.")]
    if several := _SEVERAL.search(text):
        key, value = several.groups()
        hint = f"Add -m to run once for each, write a list: {key}=[{value}], or text in quotes: '{key}=\"{value}\"'."
        return [Problem(key, value, "has several values", hint, COMMAND_LINE)]
    in_file = _IN_FILE.match(text)
    found = folders.find(in_file[1]) if in_file else None
    if found and (problems := list(_wrong_shapes(recipe_class(), _content(found[0]), "", found[1]))):
        return problems
    return [_other(error, in_file[2] if in_file else text, found[1] if found else "", folders)]


def _missing_file(error: MissingConfigException, folders: Folders) -> Problem:
    options = [name for name in error.options or [] if name not in dict(folders.files)]
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    for root, _label in folders.roots:
        if (other := root / group / f"{name}.yml").is_file():
            return must_end_in_yaml(other)
    guess = nearest(name, options)
    hint = f"Did you mean {guess}?" if guess else "Choose one of these, or add yours with --config-dir."
    section, _, folder = group.partition("/")
    if folder and "source" in section_fields(recipe_class(), section):
        group, name = section, f"{folder}/{name}"
        hint = f"A variant has no / in its name. Set what it comes from: {section}.source={name}"
    if group.partition("/")[0] == RECIPE and Path(path := f"{group}/{name}.yaml".partition("/")[2]).is_file():
        hint = f"Name the file with its ending: recipe={path}"
    in_file = _IN_FILE.match(str(error))
    found = folders.find(in_file[1]) if in_file else None
    return Problem(
        group or "config",
        name,
        f"there is no {group or 'config'} {name!r}; there are: {', '.join(options) or 'none'}",
        hint,
        found[1] if found else in_file[1] if in_file else COMMAND_LINE,
    )


def _other(error: Exception, text: str, origin: str, folders: Folders) -> Problem:
    cause = error.__cause__
    sentences = [line.strip().splitlines()[0] for line in (text, str(cause or "")) if line.strip()]
    message = "; ".join(sentences) or type(error).__name__
    hint = "hydra.verbose=true shows where."
    if no_group := _NO_GROUP.search(text):
        groups = [path.name for root, _ in folders.roots for path in root.iterdir() if path.is_dir()]
        guess = nearest(no_group[1], groups)
        hint = f"Did you mean {guess}?" if guess and guess != no_group[1] else hint
    key = str(getattr(cause, "full_key", "") or "")
    return Problem(key, None, f"cannot be composed: {message.replace('++', '')}", hint, origin)


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
