"""The user's folder and recipe files as the command line names them: there, and what they should be?"""

from __future__ import annotations

import re
from pathlib import Path

from runner.errors import Problem, RecipeError, nearest
from runner.recipe.hydra.folders import RECIPE, RECIPES_DIR

_CONFIG_DIR = "--config-dir"


def checked_config_dir(folder: Path | None) -> Path | None:
    """The folder, expanded. Raises RecipeError when it is not a folder of recipes or group variants."""
    if folder is None:
        return None
    folder = _expanded(_CONFIG_DIR, folder)
    groups = sorted(path.name for path in RECIPES_DIR.iterdir() if path.is_dir() and path.name[0] not in "._")
    problem = None
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else f"is not there ({folder.absolute()})"
        problem = Problem(_CONFIG_DIR, str(folder), what, "Name the folder that holds recipe/NAME.yaml.")
    elif not any((folder / group).is_dir() for group in groups):
        above = folder.resolve().name in groups
        hint = (
            f"Name the folder above: {folder.resolve().parent}" if above else "Put recipes into recipe/NAME.yaml there."
        )
        problem = Problem(_CONFIG_DIR, str(folder), f"has none of the folders {', '.join(groups)}", hint)
    if problem:
        raise RecipeError([problem])
    return folder


def _expanded(key: str, path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        hint = "Write the whole path."
        message = "begins with the home of a user that this machine does not have"
        raise RecipeError([Problem(key, str(path), message, hint)]) from error


def checked_file(value: str) -> Path | None:
    """The recipe file that `recipe=value` names by its path; None for a recipe's name.

    Raises RecipeError for a path that is not a file, or does not end in .yaml.
    """
    path = _expanded(RECIPE, Path(value))
    if path.suffix.lower() not in (".yaml", ".yml"):
        return None
    if path.suffix != ".yaml":
        raise RecipeError([must_end_in_yaml(path)])
    if not path.is_file():
        raise RecipeError([Problem(RECIPE, value, f"is not a file: {path.absolute()}", _file_meant(path))])
    return path


def _file_meant(path: Path) -> str:
    """What to do about a file that is not there: the one of almost that name, if there is one."""
    files = path.parent.glob("*.yaml") if path.parent.is_dir() else ()
    there = [each.stem for each in files if each.is_file()]
    if "://" in str(path) or re.match(r"\w+:/", str(path)):
        return "Name a file of this machine by its path."
    if path.is_symlink():
        return f"It is a link to {path.readlink()}, which is not a file: correct the link."
    if str(path) == path.name and (RECIPES_DIR / RECIPE / path.name).is_file():
        return f"For the shipped recipe write recipe={path.stem}."
    guess = nearest(path.stem, there)
    return f"Did you mean recipe={path.with_stem(guess)}?" if guess else "Correct the path."


def must_end_in_yaml(path: Path) -> Problem:
    """The problem of a recipe file with the other common ending."""
    hint = f"Rename it: mv {path} {path.with_suffix('.yaml')}"
    return Problem(RECIPE, str(path), "must end in .yaml", hint, str(path))
