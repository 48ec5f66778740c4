"""From a composed configuration to a checked recipe: the schema first, then rules that no single field can state.

A rule is a pure function of the recipe that yields Problems; nothing heavy. It reads what it needs and nothing else,
because of a recipe with mistakes it gets what can be read (see `runner.recipe.valid_parts`), and ends where it reads a
value that is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from runner.errors import Problem, RecipeError
from runner.pipeline import rules as pipeline
from runner.pipeline.members import concerning
from runner.pipeline.plan import select
from runner.pipeline.registry import mappings, rules_of_stages, with_settings
from runner.pipeline.rules.folders import folders_of_files
from runner.recipe.load import Composed, parse, redact
from runner.recipe.rules import arguments, code
from runner.recipe.schema import Recipe, RunOptions
from runner.recipe.valid_parts import UnusableError


def load_recipe(composed: Composed) -> tuple[Recipe, RunOptions]:
    """The checked recipe. Raises RecipeError with every problem: of the schema, and of rules across sections."""
    parsed = parse(composed)
    known = concerning(parsed.recipe, mappings())
    problems = [arguments.improve_hint(problem, known) for problem in parsed.problems]
    found = code.without_trusted(check(parsed.recipe), composed.trusted)
    found += folders_of_files(composed)
    found += check_options(parsed.recipe, parsed.options) if parsed.options else []
    seen = {problem.key for problem in problems}
    problems += [replace(p, origin=p.origin or composed.origin(p.key)) for p in found if p.key not in seen]
    problems = [replace(problem, value=redact(problem.value)) for problem in one_a_key(problems)]
    if problems or parsed.options is None:
        raise RecipeError(problems)
    return with_settings(parsed.recipe), parsed.options


def one_a_key(problems: Sequence[Problem]) -> list[Problem]:
    """Problems of one key and value as one, with every reason and every way out."""
    joined: dict[tuple[str, str], Problem] = {}
    for problem in problems:
        place = (problem.key, repr(problem.value))
        if (first := joined.get(place)) is not None:
            message = f"{first.message}; it also {problem.message}"
            problem = replace(first, message=message, hint="\n".join(filter(None, (first.hint, problem.hint))))
        joined[place] = problem
    return list(joined.values())


def check(recipe: Recipe) -> list[Problem]:
    """Every violated rule, each once."""
    problems: dict[tuple[str, ...], Problem] = {}
    known = concerning(recipe, mappings())
    of_stages = (*rules_of_stages(recipe), *arguments.rules(known))
    for rule in (*pipeline.RULES, *of_stages, *code.rules(known)):
        try:
            for problem in rule(recipe):
                parts = (problem.key, repr(problem.value), problem.message, problem.hint, problem.origin)
                problems.setdefault(parts, problem)
        except UnusableError:
            continue
    return list(problems.values())


def trusted_values(recipe: Recipe) -> dict[str, Any]:
    """What a valid recipe has only because the command line trusts it: dotted key -> value."""
    known = concerning(recipe, mappings())
    return {problem.key: problem.value for rule in code.rules(known) for problem in rule(recipe)}


def check_options(recipe: Recipe, options: RunOptions) -> list[Problem]:
    """Stages named on the command line that the pipeline does not have."""
    try:
        select(recipe, options)
    except RecipeError as error:
        return error.problems
    except UnusableError:
        pass
    return []
