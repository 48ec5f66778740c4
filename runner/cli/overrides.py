"""Overrides of a command line before they are composed: do they name what the verb needs, and only options it has?"""

from __future__ import annotations

from pathlib import Path

from runner.cli.command_line import CommandLine, key_of
from runner.cli.unknown_words import ORIGIN
from runner.cli.verbs.table import GRANTS, VERBS, Verb
from runner.errors import Problem, RecipeError
from runner.recipe.load import recipe_roots
from runner.recipe.schema import RunOptions


def checked_overrides(line: CommandLine, verb: Verb) -> list[str]:
    """The overrides for Hydra. Raises RecipeError with each option that the verb lacks, and the recipe it needs."""
    overrides = name_the_sweep(line.overrides, line.config_dir) if "sweep_id" in verb.options else line.overrides
    keys = [key_of(text) for text in overrides]
    problems = [
        _foreign(key, verb) for key in keys if key in RunOptions.model_fields and key not in (*verb.options, *GRANTS)
    ]
    if verb.on == "recipe" and not {"recipe", "name"} & set(keys):
        hint = (
            f"Name one: recipe=NAME or recipe=path/to/file.yaml. There are: {', '.join(recipe_names(line.config_dir))}."
        )
        problems.append(Problem("recipe", None, f"is needed by {verb.name} and was not given", hint, ORIGIN))
    if verb.on == "result" and not {"recipe", "name", "runs", "sweep_id"} & set(keys):
        hint = "Name a run, runs=[latest] or runs=[ID], or a recipe for its newest: recipe=NAME."
        problems.append(Problem("runs", None, f"is needed by {verb.name} and was not given", hint, ORIGIN))
    if "sweep" in keys and not line.multirun:
        hint = "Add -m, or leave it out."
        problems.append(Problem("sweep", None, "says how a sweep goes, which -m starts", hint, ORIGIN))
    if problems:
        raise RecipeError(problems)
    return overrides


def _foreign(key: str, verb: Verb) -> Problem:
    able = [name for name, each in VERBS.items() if key in each.options]
    own = f"{verb.name} has: {', '.join(verb.options)}." if verb.options else f"{verb.name} has none."
    return Problem(key, None, f"is not an option of {verb.name}, but of {', '.join(able)}", own, ORIGIN)


def name_the_sweep(overrides: list[str], config_dir: Path | None) -> list[str]:
    """`sweep=<id>` names a finished sweep unless a file of the group `sweep` has that name: it becomes `sweep_id=`."""
    known = {file.stem for root in recipe_roots(config_dir) for file in (root / "sweep").glob("*.yaml")}
    return [
        f"sweep_id={text.removeprefix('sweep=')}"
        if text.startswith("sweep=") and text.removeprefix("sweep=") not in known
        else text
        for text in overrides
    ]


def recipe_names(config_dir: Path | None) -> list[str]:
    """Names of the recipes, shipped ones and the user's own."""
    return sorted({file.stem for root in recipe_roots(config_dir) for file in (root / "recipe").glob("*.yaml")})
