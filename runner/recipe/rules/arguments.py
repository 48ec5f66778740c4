"""The pass-through mappings: does the library know the argument, and may the value be given for it?

Stages declare the mappings (`Mapped`). Arguments that the runner sets from other keys of the recipe are refused, so
that stages cannot come to use different values for what is one thing.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from runner.errors import Problem, nearest
from runner.recipe.arguments import Entry, accepts, allowed
from runner.recipe.arguments.mapped import RUNTIME_ENV, Mapped
from runner.recipe.extension import recipe_class
from runner.recipe.schema import Recipe, Section
from runner.recipe.valid_parts import section_at, section_fields

Rule = Callable[[Recipe], Iterator[Problem]]


class NotAccepted(Problem):
    """A value that the library does not take, whatever else there is about it."""


def rules(mappings: Sequence[Mapped]) -> tuple[Rule, ...]:
    """A rule for each mapping, and one for the runtime environments of all stages."""
    return (*(partial(arguments_are_known, mapped, mappings) for mapped in mappings), runtime_envs_are_known)


def arguments_are_known(mapped: Mapped, mappings: Sequence[Mapped], recipe: Recipe) -> Iterator[Problem]:
    """mappings: all that there are, for an argument that belongs into another one."""
    yield from _check(mapped, mapped.key, mapped.read(recipe), mappings)


def runtime_envs_are_known(recipe: Recipe) -> Iterator[Problem]:
    for stage, wanted in recipe.resources.items():
        yield from _check(RUNTIME_ENV, f"resources.{stage}.runtime_env", wanted.runtime_env, ())


def _check(mapped: Mapped, key: str, given: Mapping[str, Any], mappings: Sequence[Mapped]) -> Iterator[Problem]:
    entries = mapped.entries() if given else {}
    for name, value in given.items():
        dotted = f"{key}.{name}"
        if name in mapped.reserved:
            home = own_key(mapped, name)
            message = f"has a key of its own in the recipe: {home}" if home else "is not for a recipe to set"
            yield NotAccepted(dotted, value, message, f"Remove it; {mapped.reserved[name]}.")
        elif name not in entries:
            message = f"is not a known {mapped.what} of {mapped.library.versioned}"
            yield NotAccepted(dotted, value, message, _hint_for_name(name, key, mapped, mappings))
        elif not accepts(entries[name], value) and not (value is None and mapped.null_drops):
            yield NotAccepted(dotted, value, f"must be {allowed(entries[name])}", _hint_for_value(entries[name], value))


def own_key(mapped: Mapped, name: str) -> str:
    """The recipe's key that stands for an argument of the library, "" where there is none."""
    instead = mapped.reserved.get(name, "")
    return instead.removeprefix("set ") if instead.startswith("set ") else ""


def _hint_for_name(name: str, key: str, mapped: Mapped, mappings: Sequence[Mapped]) -> str:
    section = key.partition(".")[0]
    if name in section_fields(recipe_class(), section):
        return f"Did you mean {section}.{name}?"
    others = [each for each in mappings if each.key != key]
    near, far = _guesses(name, mapped)
    return (
        _home(name, [each for each in others if each.group == mapped.group])
        or (f"Did you mean {own_key(mapped, near) or f'{key}.{near}'}?" if near else "")
        or _home(name, others)
        or (f"Did you mean {own_key(mapped, far) or f'{key}.{far}'}?" if far else "")
        or "Remove it, or correct its name."
    )


def _guesses(name: str, mapped: Mapped) -> tuple[str, str]:
    """The legal name that is surely meant (spelled almost so, or another library's word for it), and one like it."""
    legal: Collection[str] = mapped.entries()
    given = name.lower().replace("-", "_")
    translated = [each for each in mapped.other_names.get(given, ()) if each in legal]
    spelled = difflib.get_close_matches(given, legal, n=1, cutoff=0.8)
    alike = difflib.get_close_matches(given, legal, n=1, cutoff=0.7)
    return next(iter(translated + spelled), ""), next(iter(alike), "")


def _longer_arguments(words: set[str], section: str, mappings: Sequence[Mapped]) -> list[str]:
    """Arguments of the section's mappings with these words in their names; first those with the section's own."""
    own = [mapped for mapped in mappings if mapped.key.rpartition(".")[0] == section]
    found = [(mapped.key.rpartition(".")[2], each) for mapped in own for each in mapped.entries()]
    fitting = [(inner, each) for inner, each in found if words <= set(each.split("_"))]
    fitting.sort(key=lambda pair: (section not in pair[1].split("_"), len(pair[1])))
    return [f"{inner}.{each}" for inner, each in fitting]


def _home(name: str, candidates: Iterable[Mapped]) -> str:
    """Where an argument of that name belongs, if one of the mappings takes it."""
    for mapped in candidates:
        if name in mapped.entries() and (home := own_key(mapped, name)):
            return f"Set {home}."
        if name in mapped.entries() and name not in mapped.reserved:
            return f"It is a {mapped.library.versioned} {mapped.what}: put it under {mapped.key}."
    return ""


def _hint_for_value(entry: Entry, value: Any) -> str:
    if value is False and "no" in entry.get("choices", []):
        return 'YAML reads an unquoted no as false: write "no" in quotes.'
    if isinstance(value, str):
        for meant in (_number(value), {"true": True, "false": False}.get(value.lower())):
            if meant is not None and accepts(entry, meant):
                return f"Write {value} without quotes."
        if guess := nearest(value, [choice for choice in entry.get("choices", []) if isinstance(choice, str)]):
            return f"Did you mean {guess}?"
    return f"If it is not given, it is {entry['default']}." if entry.get("default") is not None else ""


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def _other_word(section: str, name: str, mappings: Sequence[Mapped]) -> str:
    """The key that other tools, or other words of the field, call by that name; "" where none is known."""
    kind = section_at(recipe_class(), section)
    if kind is not None and issubclass(kind, Section) and (own := kind.other_names.get(name)):
        return f"{section}.{own}".removeprefix(".")
    for mapped in mappings:
        meant = next(iter(mapped.other_names.get(name, ())), "")
        if meant and mapped.key.rpartition(".")[0] == section:
            return own_key(mapped, meant) or f"{mapped.key}.{meant}"
    return ""


def _below(name: str, mappings: Sequence[Mapped]) -> str:
    """Where a key belongs that was given without its section, or with another sign than a dot behind it."""
    if section_fields(recipe_class(), dotted := re.sub(r"[/:-]", ".", name, count=1).rpartition(".")[0]):
        last = name[len(dotted) + 1 :]
        if last in section_fields(recipe_class(), dotted):
            return f"Did you mean {dotted}.{last}?" if dotted else ""
    sections = [each for each in recipe_class().model_fields if name in section_fields(recipe_class(), each)]
    if sections:
        return f"Did you mean {' or '.join(f'{each}.{name}' for each in sections)}?"
    return _home(name, mappings)


def improve_hint(problem: Problem, mappings: Sequence[Mapped]) -> Problem:
    """A schema's problem about an unknown key, with the mapping that accepts it or the key with the same words."""
    section, _, name = problem.key.rpartition(".")
    if not problem.message.startswith("is not a known key"):
        return problem
    if home := _home(name, [mapped for mapped in mappings if mapped.key.rpartition(".")[0] == section]):
        return replace(problem, hint=home)
    if meant := _other_word(section, name, mappings):
        return replace(problem, hint=f"Did you mean {meant}?")
    if not section and (home := _below(name, mappings)):
        return replace(problem, hint=home)
    words = set(name.split("_"))
    longer = [each for each in section_fields(recipe_class(), section) if words <= set(each.split("_"))]
    longer += _longer_arguments(words, section, mappings)
    if longer and not problem.hint.startswith("Did you mean"):
        meant = f"{section}.{longer[0]}".removeprefix(".")
        return replace(problem, hint=f"Did you mean {meant}?")
    return problem
