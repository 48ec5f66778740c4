"""Which arguments a recipe may pass through untrusted: reviewed lists next to the libraries' tables.

An argument is harmless when no value of it names code, files, packages, processes or hosts. What no list names has not
been reviewed, and is refused like what is listed as harmful: a library's new version brings new arguments.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypedDict

from runner.recipe.arguments import Library

UNREVIEWED = "has not been reviewed: it may name code, files or hosts"
_NOT_PLAIN = "is a mapping or a text where only single values have been reviewed"


class Marks(TypedDict, total=False):
    """The review of one table.

    harmless: arguments of which any single value, or list of such, is. plain: any JSON value is. values: the
    harmless values. nested: the table that judges the mapping's keys. asks: argument -> why it needs trust.
    """

    harmless: list[str]
    plain: list[str]
    values: dict[str, list[Any]]
    nested: dict[str, str]
    asks: dict[str, str]


@dataclass(frozen=True)
class Harmful:
    """A value that needs the user's trust. key: dotted, below the mapping. why: a clause after the key."""

    key: str
    value: Any
    why: str


@cache
def reviewed(library: Library) -> dict[str, Marks]:
    """The reviews of a library's tables by name, and nested ones: `harmless.json` next to the file of its tables.

    A library without that file has no argument that is harmless.
    """
    path = library.file.with_name("harmless.json")
    content: dict[str, Marks] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content


def harmful(library: Library, tables: tuple[str, ...], given: Mapping[str, Any]) -> Iterator[Harmful]:
    """Every value of the mapping that the review does not call harmless. tables: of the library; the first that has
    the argument judges it."""
    reviews = reviewed(library)
    for name, value in given.items():
        homes = (reviews[table] for table in tables if table in reviews and _knows(reviews[table], str(name)))
        yield from _judge(reviews, next(homes, Marks()), str(name), value)


def _knows(marks: Marks, name: str) -> bool:
    return any(name in names for names in marks.values())  # type: ignore[operator]


def _judge(reviews: Mapping[str, Marks], marks: Marks, name: str, value: Any) -> Iterator[Harmful]:
    if name in marks.get("plain", []) or value is None:
        return
    if name in marks.get("nested", {}):
        yield from _nested(reviews, reviews[marks["nested"][name]], name, value)
    elif name in marks.get("values", {}):
        why = marks.get("asks", {}).get(name, "names code to run, files or hosts")
        yield from _of_the_listed(name, value, marks["values"][name], why)
    elif name in marks.get("harmless", []):
        if not _is_plain(value):
            yield Harmful(name, value, _NOT_PLAIN)
    elif value or name not in marks.get("asks", {}):
        yield Harmful(name, value, marks.get("asks", {}).get(name, UNREVIEWED))


def _nested(reviews: Mapping[str, Marks], marks: Marks, name: str, value: Any) -> Iterator[Harmful]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            for found in _judge(reviews, marks, str(key), item):
                yield Harmful(f"{name}.{found.key}", found.value, found.why)
    elif isinstance(value, str) and value:
        yield Harmful(name, value, "names a file, or hides a mapping in a text")
    elif isinstance(value, list):
        yield Harmful(name, value, "is a list where the keys of a mapping have been reviewed")


def _of_the_listed(name: str, value: Any, listed: list[Any], why: str) -> Iterator[Harmful]:
    items = value if isinstance(value, list) else [value]
    if strange := [item for item in items if item not in listed]:
        shown = ", ".join(map(str, listed))
        yield Harmful(name, strange[0], f"{why} unless it is one of {shown}")


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)
