"""What a verb is called with: a composed configuration, and where it needs one the checked recipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.cli.command_line import CommandLine
from runner.errors import Problem, RecipeError
from runner.recipe.load import Composed, to_options
from runner.recipe.schema import Recipe, RunOptions


@dataclass(frozen=True)
class Call:
    """A command line with its configuration, not yet checked."""

    line: CommandLine
    composed: Composed

    @property
    def root(self) -> Path:
        """The folder of the run folders, `storage.root`."""
        storage = self.composed.values.get("storage")
        root = storage.get("root") if isinstance(storage, dict) else None
        path = Path(root if isinstance(root, str) else "runs")
        with suppress(RuntimeError):  # ~USER of nobody here, which is a problem of the recipe
            path = path.expanduser()
        return path.resolve()

    @property
    def options(self) -> RunOptions:
        """The verb's options. Raises RecipeError with what is wrong with them."""
        return to_options(self.composed)

    def given(self, key: str) -> Any:
        """The value of the top-level key that the command line gives, or None."""
        named = any(text.lstrip("+").startswith(f"{key}=") for text in self.composed.overrides)
        return self.composed.values.get(key) if named else None

    def recipe_name(self) -> str | None:
        """The name of the recipe that the command line chooses, or None where it chooses none."""
        chosen = any(text.lstrip("+").startswith(("recipe=", "name=")) for text in self.composed.overrides)
        return self.composed.values.get("name") if chosen else None

    def checked(self) -> Asked:
        """The call with its recipe. Raises RecipeError with every problem."""
        from runner.pipeline.rules.check import load_recipe

        recipe, options = load_recipe(self.composed)
        return Asked(recipe, options, self.composed, self.line)


@dataclass(frozen=True)
class Asked:
    """recipe: checked. options: of the verb. composed: the configuration that the recipe was read from."""

    recipe: Recipe
    options: RunOptions
    composed: Composed
    line: CommandLine

    @property
    def root(self) -> Path:
        """The folder of the run folders."""
        return self.recipe.storage.runs


def needed(key: str, verb: str, hint: str) -> RecipeError:
    """An option that the verb cannot do without."""
    return RecipeError([Problem(key, None, f"is needed by {verb} and was not given", hint)])


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def title(asked: Asked, jobs: Sequence[Asked]) -> str:
    """A heading line for one of several jobs: the overrides that make it; "" for a job that is alone."""
    if len(jobs) == 1:
        return ""
    alike = set.intersection(*(set(each.composed.overrides) for each in jobs))
    own = [text.lstrip("+") for text in asked.composed.overrides if text not in alike]
    return f"{' '.join([asked.recipe.name, *own])}\n"
