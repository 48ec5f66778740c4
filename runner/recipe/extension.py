"""What the package of stages adds to recipes: the sections of its stages, and values that follow from others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any, ClassVar, Protocol, cast

from runner.recipe.schema import Recipe

EXTENSION = "stages.sections.extension:LanguageModels"


class Extension(Protocol):
    """What `EXTENSION` names.

    hosts: keys that name another host, and what is sent there. stores: the same of keys that name a store.
    secrets: keys that name a file whose content lets others in, and where.
    """

    hosts: ClassVar[Mapping[str, str]]
    stores: ClassVar[Mapping[str, str]]
    secrets: ClassVar[Mapping[str, str]]

    def is_public(self, key: str, values: Mapping[str, Any]) -> bool:
        """Whether nothing of the user's is sent to the host that the key names, by the other values of the recipe."""

    def recipe_class(self) -> type[Recipe]:
        """The recipe's class: `Recipe` with the sections of the stages."""

    def complete(self, values: dict[str, Any]) -> None:
        """Fill in, in place, what follows from other keys. The values may have mistakes, and keys may be missing."""

    def as_given(self, values: dict[str, Any]) -> None:
        """Change the values of a recipe, in place, so that they mean the same when they are read as a recipe again."""

    def inherits(self, key: str) -> str:
        """The dotted key whose value `complete` copies to this one; "" for none."""

    def sources(self, values: Mapping[str, Any]) -> list[tuple[str, str]]:
        """(what, where it comes from) of what the recipe with these values works on."""

    def code(self, recipe: Any) -> Iterator[tuple[str, Any, str]]:
        """(dotted key, value, whose code) of values by which code of others runs."""


@cache
def extension() -> Extension:
    """What the package of stages adds."""
    module, _, name = EXTENSION.partition(":")
    return cast(Extension, getattr(import_module(module), name)())


def recipe_class() -> type[Recipe]:
    """The recipe's class, with the sections of the stages."""
    return extension().recipe_class()
