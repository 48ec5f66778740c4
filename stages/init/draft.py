"""From `init`'s options to the files that it writes, checked before any of them is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from runner.errors import Problem, RecipeError, RunnerError, UsageError
from runner.pipeline.rules.check import load_recipe
from runner.recipe.hydra.folders import legal_name
from runner.recipe.hydra.overrides import as_text
from runner.recipe.load import RECIPES_DIR, compose
from stages.data.sources import scheme_of
from stages.init.found import Found, find_data
from stages.init.lengths import is_here, tokenizer_of
from stages.init.proposal import Proposal, propose
from stages.init.pytest_text import pytest_name, pytest_text
from stages.init.recipe_text import SCHEMA, recipe_text
from stages.init.target import target
from stages.sections.recipe import Recipe, with_sections

_CACHE = "~/.cache/recipe-runner"


@dataclass(frozen=True)
class Asked:
    """What the command line gives. recipe: the file to write. user, answer: columns or templates."""

    data: str
    recipe: str | None = None
    user: str | None = None
    answer: str | None = None
    model: str | None = None
    cluster: str | None = None
    command: str = ""


@dataclass(frozen=True)
class Draft:
    """Files to write, path by text, the recipe first; the recipe as it will be read; and what it was proposed from."""

    files: dict[Path, str]
    recipe: Recipe
    made: Proposal

    @property
    def path(self) -> Path:
        """The recipe's file."""
        return next(iter(self.files))

    @property
    def previews(self) -> bool:
        """Whether the model's tokenizer is on this machine."""
        return is_here(self.recipe.model.source)


def draft(asked: Asked) -> Draft:
    """Propose a recipe and check it. Raises UsageError for data that cannot be used, RecipeError for the rest."""
    with _as_usage():
        found = find_data(asked.data)
    path = _path(asked.recipe, found)
    found, levels = _placed(found, path)
    aim = target(asked.model, asked.cluster)

    tokenizer = tokenizer_of(aim.source, Path(_CACHE).expanduser())
    with _as_usage():
        made = propose(found, aim, tokenizer, asked.user, asked.answer)
    text = recipe_text(made, legal_name(path.stem), asked.command)
    files = {
        path: text,
        path.with_name(pytest_name(path.stem)): pytest_text(made, path.stem, levels),
        path.with_name(SCHEMA): (RECIPES_DIR / "_schema" / "recipe.json").read_text(encoding="utf-8"),
    }
    return Draft(files, checked(path.stem, text), made)


@contextmanager
def _as_usage() -> Iterator[None]:
    """What is wrong with the data that the command line names is wrong with the command line."""
    try:
        yield
    except RunnerError as error:
        raise UsageError(error.message, error.hint) from error


def recipe_name(text: str) -> str:
    """A name that a recipe may have, from a file's."""
    return legal_name(text) or "recipe"


def _path(given: str | None, found: Found) -> Path:
    """The recipe's file. Raises RecipeError for one that a recipe cannot have."""
    path = Path(given).expanduser() if given else Path(f"{recipe_name(found.name)}.yaml")
    if path.suffix != ".yaml":
        hint = f"Write recipe={path.with_suffix('.yaml')}."
        raise RecipeError([Problem("recipe", given, "is the file to write, and must end in .yaml", hint)])
    if not legal_name(path.stem):
        hint = f"Write recipe={path.with_name('recipe.yaml')}."
        message = "names the recipe, which has a letter or a digit at least"
        raise RecipeError([Problem("recipe", given, message, hint)])
    return path


def _placed(found: Found, path: Path) -> tuple[Found, int | None]:
    """The data as a recipe there names it, and how many folders above the recipe its path is relative to."""
    folder, here = path.absolute().parent, Path.cwd()
    if scheme_of(found.source):
        return found, None
    if folder.is_relative_to(here):
        return found, len(folder.relative_to(here).parts)
    return replace(found, source=str(Path(found.source).absolute())), None


def checked(name: str, text: str) -> Recipe:
    """The recipe as it will be read. Raises RecipeError with its problems; nothing is written then."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.yaml"
        file.write_text(text, encoding="utf-8")
        try:
            return with_sections(load_recipe(compose([f"recipe={as_text(str(file))}"]))[0])
        except RecipeError as error:
            shown = str(file)
            problems = [replace(each, origin=each.origin.replace(shown, file.name)) for each in error.problems]
            raise RecipeError(problems) from error


def preview_of(made: Draft) -> list[str]:
    """A row as the model will see it, the rows' lengths, and remarks that the proposal has not: lines for the terminal.

    Raises RunnerError.
    """
    from stages.ingest.preview import preview, preview_lines

    found, known = preview(made.recipe, 0), set(map(_without_figures, made.made.remarks))
    new = [each for each in found["remarks"] if _without_figures(each) not in known]
    return preview_lines({**found, "remarks": new})


def _without_figures(remark: str) -> str:
    """What a remark says, whatever the split's name and numbers: the rows are the same before and after a split."""
    return re.sub(r"\d+", "#", remark.partition(": ")[2] or remark)
