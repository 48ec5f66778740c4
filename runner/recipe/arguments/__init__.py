"""Names, types, defaults and choices of the arguments that recipes pass through to libraries.

A `Library` reads the JSON file next to the code that passes the arguments. `make known-keys` writes these files from
the installed libraries, whose versions stand at their top; a test compares them. Reading one imports no library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict


class Entry(TypedDict, total=False):
    """One argument. A value is legal when it is of one of the kinds, or one of the choices, and within the bounds.

    type: kinds joined by "|": bool, int, float, str, list, dict, null; "any" where a value cannot be judged by its
    look; none where only the choices are legal. choices: single values that are legal besides. ignore_case: in them.
    gt, ge, lt, le: bounds of a number.
    """

    type: str
    default: Any
    choices: list[Any]
    ignore_case: bool
    gt: float
    ge: float
    lt: float
    le: float


_WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "list": "a list",
    "dict": "a mapping",
    "null": "null",
}
_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


@dataclass(frozen=True)
class Library:
    """A library that recipes pass arguments through to.

    name: as in the file's `versions`. title: for people. file: the JSON file of its tables. Bounds that the library
    states in words only, or not at all, have been reviewed and lie in `bounds.json` next to it.
    """

    name: str
    title: str
    file: Path

    @cached_property
    def content(self) -> dict[str, Any]:
        """All tables by name, and `versions`: the library's and of what else the tables depend on."""
        content: dict[str, Any] = json.loads(self.file.read_text(encoding="utf-8"))
        return content

    @cached_property
    def bounds(self) -> dict[str, dict[str, Entry]]:
        """Reviewed bounds by table and argument, and single values that are legal outside them."""
        path = self.file.with_name("bounds.json")
        content: dict[str, dict[str, Entry]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return content

    @cached_property
    def _tables(self) -> dict[str, dict[str, Entry]]:
        return {}

    def table(self, section: str) -> Mapping[str, Entry]:
        """A table of the file: argument -> entry, with its reviewed bounds."""
        if section not in self._tables:
            entries: dict[str, Entry] = self.content[section]
            bounded = {name: each for name, each in self.bounds.get(section, {}).items() if name in entries}
            self._tables[section] = entries | {name: _narrowed(entries[name], each) for name, each in bounded.items()}
        return self._tables[section]

    @property
    def versioned(self) -> str:
        """The library's title and version: `Ray 2.60.0`."""
        return f"{self.title} {self.content['versions'][self.name]}"


RAY = Library("ray", "Ray", Path(__file__).with_name("ray.json"))


def all_accepted(table: Mapping[str, Entry], given: Mapping[str, Any]) -> bool:
    """Whether the table has every argument that is given, and takes its value: rules may then count with them."""
    return all(name in table and accepts(table[name], value) for name, value in given.items())


def accepts(entry: Entry, value: Any) -> bool:
    """Whether the value may be given for the argument. Lenient where the library converts: 0 and 1 are booleans."""
    kinds = _kinds(entry)
    if "any" in kinds:
        return True
    single = int(value) if "float" in kinds and isinstance(value, float) and value.is_integer() else value
    if any(_same(choice, single, entry.get("ignore_case", False)) for choice in entry.get("choices", [])):
        return True
    return any(_is(kind, value) for kind in kinds) and _within(entry, value)


def allowed(entry: Entry) -> str:
    """What the argument takes, in words: `a whole number >= 1, or null`."""
    bounds = " and ".join(f"{sign} {_shown(entry[key])}" for key, sign in _SIGNS.items() if key in entry)  # type: ignore[literal-required]
    words = []
    for kind in sorted(_kinds(entry), key=list(_WORDS).index):
        words.append(f"{_WORDS[kind]} {bounds}" if bounds and kind in ("int", "float") else _WORDS[kind])
    if entry.get("choices"):
        words.insert(0, f"one of {', '.join(map(str, entry['choices']))}")
    return ", or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _narrowed(entry: Entry, reviewed: Entry) -> Entry:
    """The entry with its reviewed bounds, which take the place of the library's own on the same side."""
    sides = (("gt", "ge"), ("lt", "le"))
    replaced = {key for side in sides if any(key in reviewed for key in side) for key in side}
    kept = {key: value for key, value in entry.items() if key not in replaced}
    return kept | reviewed  # type: ignore[return-value]


def _shown(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def _kinds(entry: Entry) -> list[str]:
    return [kind for kind in entry.get("type", "").split("|") if kind]


def _same(choice: Any, value: Any, ignore_case: bool) -> bool:
    if ignore_case and isinstance(choice, str) and isinstance(value, str):
        return choice.lower() == value.lower()
    return type(choice) is type(value) and bool(choice == value)


def _is(kind: str, value: Any) -> bool:
    match kind:
        case "null":
            return value is None
        case "bool":
            return isinstance(value, bool) or (isinstance(value, int) and value in (0, 1))
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "float":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "str":
            return isinstance(value, str)
        case "list":
            return isinstance(value, list)
        case _:
            return isinstance(value, dict)


def _within(entry: Entry, value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    return (
        value > entry.get("gt", float("-inf"))
        and value >= entry.get("ge", float("-inf"))
        and value < entry.get("lt", float("inf"))
        and value <= entry.get("le", float("inf"))
    )
