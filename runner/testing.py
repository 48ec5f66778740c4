"""For the tests of recipes, in this repository and in yours: are they valid, do their mistakes get caught, and do the
builders hand the libraries what they did before?

    @pytest.mark.parametrize("name", recipe_names(FOLDER))
    def test_recipe_is_valid(name):
        load_recipe(name, config_dir=FOLDER)

None of this needs a GPU, a network or pytest itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from difflib import unified_diff
from pathlib import Path
from typing import Any

from runner.errors import Problem, RecipeError
from runner.pipeline.rules import check
from runner.recipe.load import Composed, compose
from runner.recipe.schema import Recipe
from runner.storage.atomic import write_text

UPDATE = "UPDATE_GOLDEN"


def recipe_names(folder: Path) -> list[str]:
    """Names of the recipes in `folder`/recipe, for `--config-dir folder`. Raises AssertionError when there are none."""
    names = sorted(file.stem for file in (folder / "recipe").glob("*.yaml"))
    assert names, f"there is no recipe in {(folder / 'recipe').absolute()}"
    return names


def composed(recipe: str, *overrides: str, config_dir: Path | None = None) -> Composed:
    """The recipe with the overrides of a command line, not yet checked: what the functions below also take.

    Composing takes a tenth of a second; tests that change values of the same recipe can share one.
    Raises RecipeError for what Hydra refuses.
    """
    return compose([f"recipe={recipe}", *overrides], config_dir)


def changed(base: Composed, changes: Mapping[str, Any]) -> Composed:
    """A copy with other values, as if its files set them.

    changes: by dotted key, `{"cluster.resources": {...}}`, which replaces what is there; or by section, as in a file,
    `{"cluster": {"resources": {...}}}`, which is merged.
    """
    values = deepcopy(base.values)
    for dotted, value in changes.items():
        *parents, name = dotted.split(".")
        section = values
        for parent in parents:
            section = section.setdefault(parent, {})
        section[name] = deepcopy(value) if parents else _merged(section.get(name), value)
    return replace(base, values=values)


def _merged(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, dict) and above:
        return {key: _merged(below.get(key), above[key]) if key in above else below[key] for key in below | above}
    return deepcopy(above)


def problems_of(recipe: str | Composed, *overrides: str, config_dir: Path | None = None) -> dict[str, Problem]:
    """Every problem by its dotted key, as `validate` reports them; {} when the recipe is valid."""
    found: list[Problem] = []
    try:
        check.load_recipe(_compose(recipe, overrides, config_dir))
    except RecipeError as error:
        found = error.problems
    by_key = {problem.key: problem for problem in found}
    assert len(by_key) == len(found), f"a key is reported twice: {[problem.key for problem in found]}"
    return by_key


def load_recipe(recipe: str | Composed, *overrides: str, config_dir: Path | None = None) -> Recipe:
    """The resolved recipe. Raises AssertionError with every problem when it is not valid."""
    try:
        return check.load_recipe(_compose(recipe, overrides, config_dir))[0]
    except RecipeError as error:
        raise AssertionError("\n".join(["the recipe is not valid:", *map(_line, error.problems)])) from error


def assert_problems(
    expect: Mapping[str, str], recipe: str | Composed, *overrides: str, config_dir: Path | None = None
) -> None:
    """The recipe has problems at exactly these keys, each with these words in its message or hint ("": any)."""
    found = problems_of(recipe, *overrides, config_dir=config_dir)
    wrong = [f"not reported: {key}" for key in expect if key not in found]
    wrong += [f"not expected: {_line(problem)}" for key, problem in found.items() if key not in expect]
    for key, words in expect.items():
        if key in found and words not in f"{found[key].message} {found[key].hint}":
            wrong.append(f"without the words {words!r}: {_line(found[key])}")
    assert not wrong, "\n".join(wrong)


def assert_golden(value: Any, file: Path) -> None:
    """The value, as JSON, is what the file holds. With UPDATE_GOLDEN=1 in the environment the file is written instead:
    read the difference before you commit it."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    same = file.is_file() and json.loads(text) == json.loads(file.read_bytes())
    if os.environ.get(UPDATE) == "1" and not same:
        write_text(file, text)
    assert file.is_file(), f"{file} is not there; write it with {UPDATE}=1"
    before = file.read_text(encoding="utf-8")
    if json.loads(text) != json.loads(before):
        difference = unified_diff(before.splitlines(), text.splitlines(), str(file), "now", lineterm="")
        raise AssertionError("\n".join([*difference, f"write it again with {UPDATE}=1 if that is meant"]))


def _compose(recipe: str | Composed, overrides: tuple[str, ...], config_dir: Path | None) -> Composed:
    if isinstance(recipe, Composed):
        assert not overrides, "overrides belong to composed()"
        return recipe
    return composed(recipe, *overrides, config_dir=config_dir)


def _line(problem: Problem) -> str:
    return f"{problem.key} = {problem.value!r}: {problem.message}. {problem.hint}".strip()
