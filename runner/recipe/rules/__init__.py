"""Rules that no single field of the schema can state. Pure: a Recipe in, a list of Problems out; nothing heavy.

A rule is a function of the recipe that yields Problems. It reads what it needs and nothing else, because of a recipe
with mistakes it gets what can be read (see `runner.recipe.valid_parts`), and ends where it reads a value that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from runner.cluster import rules as resources
from runner.errors import Problem, RecipeError
from runner.pipeline import rules as pipeline
from runner.pipeline.plan import select
from runner.recipe.rules import arguments, code
from runner.recipe.schema import Recipe, RunOptions
from runner.recipe.valid_parts import UnusableError
from stages.data import rules as data
from stages.engines.vllm import rules as engines
from stages.evaluate import rules as evaluation
from stages.infer import rules as sampling
from stages.serve import rules as endpoint
from stages.trainers.llamafactory import rules as training

Rule = Callable[[Recipe], Iterator[Problem]]

RULES: tuple[Rule, ...] = (
    *pipeline.RULES,
    *data.RULES,
    *arguments.RULES,
    *training.RULES,
    *engines.RULES,
    *sampling.RULES,
    *endpoint.RULES,
    *code.RULES,
    *resources.RULES,
    *evaluation.RULES,
)


def check(recipe: Recipe) -> list[Problem]:
    """Every violated rule, each once."""
    problems: list[Problem] = []
    for rule in RULES:
        try:
            for problem in rule(recipe):
                if problem not in problems:
                    problems.append(problem)
        except UnusableError:
            continue
    return problems


def check_options(recipe: Recipe, options: RunOptions) -> list[Problem]:
    """Stages named on the command line that the pipeline does not have."""
    try:
        select(recipe, options)
    except RecipeError as error:
        return error.problems
    except UnusableError:
        pass
    return []


improve_hint = arguments.improve_hint
