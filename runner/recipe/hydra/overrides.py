r"""Overrides of a command line in the form that Hydra reads, or refused in a sentence that names the character.

Hydra's grammar refuses plain text with `~`, `=`, umlauts or quoted keys, and takes `\n` for a backslash and an n. Here
text is quoted where its meaning is plain, JSON is accepted, and in double quotes `\n` and `\t` are a newline and a tab.
What comes out can be given in again.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import OverrideParseException

from runner.errors import Problem, RecipeError

COMMAND_LINE = "command line"
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|\\.|.', re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t"}
_STRUCTURE = re.compile(r"""[\[\]{},'"()]""")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-/]*")
_STRANGE = re.compile(r"""[^A-Za-z0-9_/\-\\+.$%*@?|:=,\s\[\]{}()'"]""")  # what needs quotes in an override
_KEY = re.compile(r"(\+{0,2}|~)[\w$-]+([./@:][\w$-]+)*", re.ASCII)
_UNREADABLE = re.compile(r"(?:error at: '|input '|at ')(.+?)'")


def readable(overrides: Iterable[str]) -> list[str]:
    """Each override as Hydra reads it. Raises RecipeError with all that cannot be read."""
    found, problems = [], []
    for text in overrides:
        try:
            found.append(_readable(text))
        except RecipeError as error:
            problems += error.problems
    if problems:
        raise RecipeError(problems)
    return found


def parsed(overrides: Iterable[str]) -> list[Override]:
    """Hydra's own objects of readable overrides."""
    return [_parsed(text) for text in overrides]


def key_of(override: Override) -> str:
    """The key that an override sets, without the package of a group."""
    return str(override.get_key_element()).lstrip("+~").split("@")[0]


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Override:
    """Cached: a command line is parsed for several questions, and parsing takes longer than most rules."""
    (override,) = _parser().parse_overrides([text])
    return override


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


def _readable(text: str) -> str:
    key, equals, value = text.partition("=")
    if equals and not _KEY.fullmatch(key):
        message = f"has a key that cannot be read: {key!r}" if key.strip() else "has no key before the ="
        hint = "Keys are words with dots between them: storage.root=FOLDER."
        if "[" in key:
            hint = f"A list is given as a whole: {key.partition('[')[0]}=[A,B]."
        raise RecipeError([Problem(COMMAND_LINE, text, message, hint, COMMAND_LINE)])
    if _STRUCTURE.search(value) and _is_there(value):
        return f"{key}={as_text(value)}"
    text = f"{key}{equals}{_with_escapes(key, value)}"
    error = _error(text)
    if error is None:
        return text
    value = text.partition("=")[2]
    for other in (_from_json(value), _quoted(value)):
        if other is not None and _error(f"{key}={other}") is None:
            return f"{key}={other}"
    raise RecipeError([_unreadable(key, text, error)])


def _error(text: str) -> OverrideParseException | None:
    try:
        parsed([text])
    except OverrideParseException as error:
        return error
    return None


def _with_escapes(key: str, value: str) -> str:
    r"""The value with `\n` and `\t` written out in double quotes. Raises RecipeError for one outside of them."""
    parts = []
    for token in _TOKEN.findall(value):
        if token.startswith('"') and len(token) > 1:
            token = re.sub(r"\\(.)", lambda found: _ESCAPED.get(found[1], found[0]), token, flags=re.DOTALL)
        elif found := re.search(r"(?<!\\)\\[nt]", token):
            name = {"n": "newline", "t": "tab"}[found[0][1]]
            message = f"has {found[0]} outside of double quotes, where it is a backslash and a letter"
            hint = f"For a {name} put the text in double quotes: '{key.lstrip('+')}=\"...{found[0]}...\"'."
            raise RecipeError([Problem(key.lstrip("+"), value, message, hint, COMMAND_LINE)])
        parts.append(token)
    return "".join(parts)


def _is_there(value: str) -> bool:
    """Whether the value is, as it stands, the path of something on this machine."""
    with suppress(OSError, RuntimeError, ValueError):
        return os.path.lexists(Path(value).expanduser())
    return False


def _quoted(value: str) -> str | None:
    """Plain text in quotes; None for a value with brackets, commas or quotes, whose meaning is not plain."""
    return None if _STRUCTURE.search(value) else as_text(value)


def as_text(value: str) -> str:
    """The text as an override gives it, in quotes."""
    return str(QuotedString(text=value, quote=Quote.double).with_quotes())


def _from_json(value: str) -> str | None:
    """A JSON object or list in Hydra's form; None for anything else."""
    try:
        return in_hydras_form(json.loads(value)) if value[:1] in ("{", "[") else None
    except ValueError:
        return None


def in_hydras_form(value: Any) -> str:
    """A plain value as an override gives it. Raises ValueError for a key that Hydra has no form for."""
    if isinstance(value, dict):
        if wrong := [key for key in value if not _WORD.fullmatch(str(key))]:
            raise ValueError(f"{wrong[0]!r} is not a key for the command line")
        return "{" + ",".join(f"{key}:{in_hydras_form(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(in_hydras_form, value)) + "]"
    return as_text(value) if isinstance(value, str) else json.dumps(value)


def _unreadable(key: str, text: str, error: OverrideParseException) -> Problem:
    """The problem, with the character that cannot be read and the spelling that can."""
    reason = str(error)
    found = _UNREADABLE.search(reason)
    strange = _STRANGE.search(text.partition("=")[2])
    where = found[1] if found and found[1] != "<EOF>" else strange[0] if strange else ""
    message = f"cannot be read at {where!r}" if where else "ends too early: a quote, bracket or value is missing"
    plain = key.lstrip("+~") or "key"
    hint = f"Put text with such characters in quotes: '{plain}=\"...\"'; in a list or mapping each item: '[\"...\"]'."
    value = text.partition("=")[2]
    if value and not re.search(r"""['"\\]""", value) and len(value) < 100:
        hint = f"Put the text in quotes: '{plain}=\"{value}\"'; in a list or mapping each item: '[\"...\"]'."
    if re.search(r"^,|,$|,\s*,", value):
        hint = "Remove the comma that no value follows or precedes."
    if "=" not in text:
        message, hint = "is not key=value", "Write key=value, or ~key to remove a key."
    return Problem(COMMAND_LINE, text, message, hint, COMMAND_LINE)
