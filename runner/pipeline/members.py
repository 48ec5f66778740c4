"""Parts that a recipe chooses one of by name, such as the library that a stage works with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from importlib import import_module
from typing import Any, Generic, TypeVar, cast

from runner.errors import Problem, nearest
from runner.pipeline.optional import Rule
from runner.recipe.arguments.mapped import Mapped
from runner.recipe.schema import Recipe
from runner.recipe.valid_parts import UnusableError

T = TypeVar("T")


@dataclass(frozen=True)
class Members(Generic[T]):
    """key: dotted, of the recipe, that names one. what: the word for it. targets: name -> "module:Class"."""

    key: str
    what: str
    targets: Mapping[str, str]

    def named(self, name: str) -> T:
        """The member of that name in the targets."""
        module, _, attribute = self.targets[name].partition(":")
        return cast(T, getattr(import_module(module), attribute)())

    def chosen(self, recipe: Recipe) -> T:
        """The member that the recipe names. Raises UnusableError for a name that `is_known` has a problem with."""
        name = _value(recipe, self.key)
        if name not in self.targets:
            raise UnusableError(self.key)
        return self.named(name)

    def rules(self, rules_of: Callable[[T], Sequence[Rule]]) -> tuple[Rule, ...]:
        """The rules of every member, each for recipes that name the member, and one that the name is known."""
        own = (OfMember(self.key, name, rule) for name in self.targets for rule in rules_of(self.named(name)))
        return (NameIsKnown(self.key, self.what, tuple(self.targets)), *own)

    def mappings(self, mappings_of: Callable[[T], Sequence[Mapped]]) -> tuple[Mapped, ...]:
        """The pass-through mappings of every member, each for recipes that name the member."""
        found = ((name, mapped) for name in self.targets for mapped in mappings_of(self.named(name)))
        return tuple(replace(mapped, only_for=(self.key, name)) for name, mapped in found)


@dataclass(frozen=True)
class OfMember:
    """A rule for recipes that have this name at the key."""

    key: str
    name: str
    rule: Rule

    def __call__(self, recipe: Recipe) -> Iterator[Problem]:
        if _value(recipe, self.key) == self.name:
            yield from self.rule(recipe)


@dataclass(frozen=True)
class NameIsKnown:
    """The rule that the key names a member."""

    key: str
    what: str
    names: tuple[str, ...]

    def __call__(self, recipe: Recipe) -> Iterator[Problem]:
        name = _value(recipe, self.key)
        if name not in self.names:
            guess = nearest(name, self.names)
            message = f"is not a known {self.what}; allowed: {', '.join(self.names)}"
            yield Problem(self.key, name, message, f"Did you mean {guess}?" if guess else "Choose one of these.")


def concerning(recipe: Recipe, mappings: Sequence[Mapped]) -> list[Mapped]:
    """The mappings less those of members that the recipe does not name."""
    return [mapped for mapped in mappings if mapped.only_for is None or _names(recipe, *mapped.only_for)]


def _names(recipe: Recipe, key: str, name: str) -> bool:
    try:
        return bool(_value(recipe, key) == name)
    except UnusableError:
        return False


def _value(recipe: Recipe, key: str) -> Any:
    return reduce(getattr, key.split("."), recipe)
