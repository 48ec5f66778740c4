"""A key of the recipe whose value goes to a library as it is, and what may be in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runner.recipe.arguments import RAY, Entry, Library


@dataclass(frozen=True)
class Mapped:
    """A pass-through mapping; the folder that hands it to the library declares it.

    key: dotted. what: the library's word for an argument. read: finds the mapping in a recipe. tables: of the library,
    what may be in it. reserved: argument -> what to do instead. null_drops: a null there means that the argument is not
    given. other_names: what other libraries call an argument -> its names here. group: mappings of one group are looked
    at first for an argument that stands in the wrong one. only_for: (key, value) of the recipes that it is for.
    """

    key: str
    what: str
    read: Callable[[Any], Mapping[str, Any]]
    library: Library
    tables: tuple[str, ...]
    reserved: Mapping[str, str] = field(default_factory=dict)
    null_drops: bool = False
    other_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    group: str = ""
    only_for: tuple[str, str] | None = None

    def entries(self) -> dict[str, Entry]:
        return {name: entry for each in reversed(self.tables) for name, entry in self.library.table(each).items()}


RUNTIME_ENV = Mapped(
    "resources.*.runtime_env",
    "runtime_env field",
    lambda recipe: {},
    RAY,
    ("runtime_env",),
    other_names={"env": ("env_vars",)},
)


def inner(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A mapping within a mapping; empty where there is none, or another kind of value, which is judged above it."""
    value = given.get(name)
    return value if isinstance(value, Mapping) else {}
