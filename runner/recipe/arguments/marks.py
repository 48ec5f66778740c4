"""Which arguments a recipe may pass through untrusted: reviewed lists beside the libraries' tables.

An argument is harmless when no value of it names code, files, packages, processes or hosts. What no list names has not
been reviewed, and is refused like what is listed as harmful: a library's new version brings new arguments.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypedDict

from runner.recipe.arguments import FILES, ROOT

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
def reviewed(library: str) -> dict[str, Marks]:
    """The reviews of a library's tables, by the table's name: those of `runner.recipe.arguments`, and nested ones."""
    path = (ROOT / FILES[library]).with_name("harmless.json")
    content: dict[str, Marks] = json.loads(path.read_text(encoding="utf-8"))
    return content


def harmful(tables: tuple[str, ...], given: Mapping[str, Any]) -> Iterator[Harmful]:
    """Every value of the mapping that the review does not call harmless. tables: as `vllm.engine`; the first with the
    argument's name judges it."""
    for name, value in given.items():
        homes = [table for table in tables if _knows(table, str(name))]
        library, _, section = (homes or list(tables))[0].partition(".")
        yield from _judge(reviewed(library), reviewed(library)[section], str(name), value)


def _knows(table: str, name: str) -> bool:
    library, _, section = table.partition(".")
    return any(name in names for names in reviewed(library)[section].values())  # type: ignore[attr-defined]


def _judge(reviews: Mapping[str, Marks], marks: Marks, name: str, value: Any) -> Iterator[Harmful]:
    if name in marks.get("plain", []) or value is None:
        return
    if name in marks.get("nested", {}):
        yield from _nested(reviews, reviews[marks["nested"][name]], name, value)
    elif name in marks.get("values", {}):
        yield from _of_the_listed(name, value, marks["values"][name])
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
    elif not _is_plain(value):
        yield Harmful(name, value, _NOT_PLAIN)


def _of_the_listed(name: str, value: Any, listed: list[Any]) -> Iterator[Harmful]:
    items = value if isinstance(value, list) else [value]
    if strange := [item for item in items if item not in listed]:
        shown = ", ".join(map(str, listed))
        yield Harmful(name, strange[0], f"names code to run, files or hosts unless it is one of {shown}")


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)
