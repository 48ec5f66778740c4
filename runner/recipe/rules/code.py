"""A recipe is data: what names code, files, packages, processes or hosts needs the trust of who runs it (`--trust`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from runner.errors import Problem
from runner.recipe.arguments.mapped import RUNTIME_ENV, Mapped
from runner.recipe.arguments.marks import harmful
from runner.recipe.extension import extension
from runner.recipe.rules.arguments import NotAccepted
from runner.recipe.schema import Recipe

Rule = Callable[[Recipe], Iterator[Problem]]


class NeedsTrust(Problem):
    """A value that the command line may trust by its key."""


def rules(mappings: Sequence[Mapped]) -> tuple[Rule, ...]:
    """The rules of a recipe with these pass-through mappings."""
    own = (variables_are_texts, code_of_others_is_trusted, interpreter_is_trusted)
    return (partial(arguments_are_harmless, mappings), *own)


def arguments_are_harmless(mappings: Sequence[Mapped], recipe: Recipe) -> Iterator[Problem]:
    """What the reviewed lists do not call harmless, in every pass-through mapping and runtime environment."""
    keys = [mapped.key for mapped in mappings]
    for mapped in mappings:
        if not any(mapped.key.startswith(f"{key}.") for key in keys):  # a mapping within another is judged there
            yield from _harmful(mapped, mapped.key, mapped.read(recipe))
    for stage, wanted in recipe.resources.items():
        yield from _harmful(RUNTIME_ENV, f"resources.{stage}.runtime_env", wanted.runtime_env)


def code_of_others_is_trusted(recipe: Recipe) -> Iterator[Problem]:
    for key, value, whose in extension().code(recipe):
        yield _needs_trust(key, value, f"runs {whose}")


def variables_are_texts(recipe: Recipe) -> Iterator[Problem]:
    """Of environments; a value that ends a line or hides characters may be read as several variables."""
    for stage, wanted in recipe.resources.items():
        variables = wanted.runtime_env.get("env_vars")
        for name, value in (variables if isinstance(variables, Mapping) else {}).items():
            if not isinstance(value, str) or not value.isprintable():
                key = f"resources.{stage}.runtime_env.env_vars.{name}"
                yield Problem(key, value, "must be a text of printable characters", "Put a number in quotes.")


def interpreter_is_trusted(recipe: Recipe) -> Iterator[Problem]:
    """The interpreter of a submitted job is a command that runs on the cluster."""
    if recipe.submit.python not in ("python", "python3"):
        yield _needs_trust("submit.python", recipe.submit.python, "names code to run")


def without_trusted(problems: list[Problem], trusted: Collection[str]) -> list[Problem]:
    """The problems less what the command line trusts, and one for every trusted key that nothing asks trust for.

    A key stands for itself and what is below it. Of a value that its library does not take nobody is asked to trust.
    """
    wrong = {problem.key for problem in problems if isinstance(problem, NotAccepted)}
    asking = [problem for problem in problems if isinstance(problem, NeedsTrust) and problem.key not in wrong]
    left = [
        each
        for each in problems
        if not isinstance(each, NeedsTrust) or (each in asking and not _covered(each.key, trusted))
    ]
    for key in trusted:
        if not any(_covered(problem.key, [key]) for problem in asking):
            message = f"nothing at {key} needs trust"
            yours = ", ".join(problem.key for problem in asking)
            hint = f"These do: {yours}." if yours else "Remove it."
            left.append(Problem("trust", key, message, hint, "command line"))
    return left


def _covered(key: str, trusted: Collection[str]) -> bool:
    return any(key == each or key.startswith((f"{each}.", f"{each}[")) for each in trusted)


def _harmful(mapped: Mapped, key: str, given: Any) -> Iterator[Problem]:
    known = mapped.entries() if given else {}
    checked = {name: value for name, value in given.items() if name in known and name not in mapped.reserved}
    for found in harmful(mapped.library, mapped.tables, checked):
        yield _needs_trust(f"{key}.{found.key}", found.value, found.why)


def _needs_trust(key: str, value: Any, why: str) -> NeedsTrust:
    hint = f"Remove it, or add --trust {key} to the command line if you know what it does."
    return NeedsTrust(key, value, f"{why}: a recipe is data, and may not", hint)
