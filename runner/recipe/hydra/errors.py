"""What Hydra refuses to compose, in words for the person who wrote the file or the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from pydantic import BaseModel

from runner.errors import Problem, nearest
from runner.recipe.schema import Recipe

COMMAND_LINE = "command line"
_IN_FILE = re.compile(r"In '([^']+)': ?(.*)", re.DOTALL)
_SEVERAL = re.compile(r"Ambiguous value for argument '\+*([^'=]+)=(.*)'")
_NO_GROUP = re.compile(r"Could not override '/?(\w+)")
_QUOTES = "Write key=value; put quotes around a value with commas, brackets or spaces: 'key=\"a, b\"'."


def explain(error: Exception, roots: Sequence[Path]) -> list[Problem]:
    """The problems behind an exception of Hydra, OmegaConf or YAML. roots: folders that recipe files come from."""
    text = str(error)
    if isinstance(error, OverrideParseException):
        reason = next((line for line in text.splitlines() if not line.startswith(("Error parsing", "See "))), "")
        return [Problem(COMMAND_LINE, error.override, f"cannot be read: {reason}", _QUOTES, COMMAND_LINE)]
    if isinstance(error, MissingConfigException):
        return [_missing_file(error)]
    if isinstance(error, yaml.YAMLError):
        return [Problem("", None, f"a recipe file is not valid YAML: {text}")]
    if isinstance(error, RecursionError):
        return [Problem("", None, "a recipe file refers to itself", "Write the value out instead of a YAML alias.")]
    if several := _SEVERAL.search(text):
        key, value = several.groups()
        hint = f"Add -m to run once for each, or write a list: {key}=[{value}]."
        return [Problem(key, value, "has several values", hint, COMMAND_LINE)]
    file = (in_file := _IN_FILE.match(text)) and _find(in_file[1], roots)
    if file and (problems := list(_wrong_shapes(Recipe, _content(file), "", str(file)))):
        return problems
    return [_other(error, in_file[2] if in_file else text, str(file or ""), roots)]


def _missing_file(error: MissingConfigException) -> Problem:
    options = list(error.options or [])
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    guess = nearest(name, options)
    origin = in_file[1] if (in_file := _IN_FILE.match(str(error))) else COMMAND_LINE
    return Problem(
        group or "config",
        name,
        f"there is no {group or 'config'} {name!r}; there are: {', '.join(options) or 'none'}",
        f"Did you mean {guess}?" if guess else "Choose one of these, or add yours with --config-dir.",
        origin,
    )


def _other(error: Exception, text: str, origin: str, roots: Sequence[Path]) -> Problem:
    cause = error.__cause__
    said = [line.strip().splitlines()[0] for line in (text, str(cause or "")) if line.strip()]
    message = "; ".join(said) or type(error).__name__
    hint = "hydra.verbose=true shows where."
    if no_group := _NO_GROUP.search(text):
        groups = [path.name for root in roots for path in root.iterdir() if path.is_dir()]
        guess = nearest(no_group[1], groups)
        hint = f"Did you mean {guess}?" if guess and guess != no_group[1] else hint
    key = str(getattr(cause, "full_key", "") or "")
    return Problem(key, None, f"cannot be composed: {message.replace('++', '')}", hint, origin)


def _find(name: str, roots: Sequence[Path]) -> Path | None:
    return next((file for root in roots if (file := root / f"{name}.yaml").is_file()), None)


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
