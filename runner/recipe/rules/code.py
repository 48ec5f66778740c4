"""A recipe is data: what names code, files, packages, processes or hosts needs the trust of who runs it (`--trust`)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from runner.errors import Problem
from runner.recipe.arguments.marks import harmful
from runner.recipe.rules.arguments import MAPPINGS, RUNTIME_ENV, Mapped
from runner.recipe.schema import Recipe

_INNER = ("structured_outputs", "structured_outputs_config")  # judged as a part of the mapping above


class NeedsTrust(Problem):
    """A value that the command line may trust by its key."""


def arguments_are_harmless(recipe: Recipe) -> Iterator[Problem]:
    """What the reviewed lists do not call harmless, in every pass-through mapping."""
    for mapped in MAPPINGS:
        if mapped.key.rpartition(".")[2] not in _INNER:
            yield from _harmful(mapped, mapped.key, mapped.read(recipe))
    for stage, wanted in recipe.resources.items():
        yield from _harmful(RUNTIME_ENV, f"resources.{stage}.runtime_env", wanted.runtime_env)


def code_of_the_model_is_trusted(recipe: Recipe) -> Iterator[Problem]:
    if recipe.model.trust_remote_code:
        yield _needs_trust("model.trust_remote_code", True, "runs code of the model's repository")


def interpreter_is_trusted(recipe: Recipe) -> Iterator[Problem]:
    """The interpreter of a submitted job is a command that runs on the cluster."""
    if recipe.submit.python not in ("python", "python3"):
        yield _needs_trust("submit.python", recipe.submit.python, "names code to run")


def without_trusted(problems: list[Problem], trusted: Collection[str]) -> list[Problem]:
    """The problems less what the command line trusts, and one for every trusted key that nothing asks trust for.

    A key stands for itself and what is below it.
    """
    asking = [problem for problem in problems if isinstance(problem, NeedsTrust)]
    left = [each for each in problems if each not in asking or not _covered(each.key, trusted)]
    for key in trusted:
        if not any(_covered(problem.key, [key]) for problem in asking):
            message = f"nothing at {key} needs trust"
            yours = ", ".join(problem.key for problem in asking)
            hint = f"These do: {yours}." if yours else "Remove it."
            left.append(Problem("trust", key, message, hint, "command line"))
    return left


def trusted_values(recipe: Recipe) -> dict[str, Any]:
    """What runs only because it is trusted: dotted key -> value. Of a recipe that passed its checks."""
    return {problem.key: problem.value for rule in RULES for problem in rule(recipe)}


def _covered(key: str, trusted: Collection[str]) -> bool:
    return any(key == each or key.startswith((f"{each}.", f"{each}[")) for each in trusted)


def _harmful(mapped: Mapped, key: str, given: Any) -> Iterator[Problem]:
    known = mapped.entries() if given else {}
    checked = {name: value for name, value in given.items() if name in known and name not in mapped.reserved}
    for found in harmful(mapped.tables, checked):
        yield _needs_trust(f"{key}.{found.key}", found.value, found.why)


def _needs_trust(key: str, value: Any, why: str) -> NeedsTrust:
    hint = f"Remove it, or add --trust {key} to the command line if you know what it does."
    return NeedsTrust(key, value, f"{why}: a recipe is data, and may not", hint)


RULES = (arguments_are_harmless, code_of_the_model_is_trusted, interpreter_is_trusted)
