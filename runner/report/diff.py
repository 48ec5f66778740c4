"""What differs between a recipe and another one: a recipe by name or file, or what an earlier run was given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from runner.errors import Problem, RecipeError, RunnerError, nearest
from runner.pipeline.optional import HasLibraryArguments
from runner.pipeline.registry import load_stage
from runner.pipeline.runs import find_run
from runner.recipe.hydra.overrides import as_text
from runner.recipe.load import RECIPES_DIR, Composed, compose, flatten, redact, to_recipe
from runner.recipe.schema import Recipe
from runner.recipe.show import value_origins
from runner.recipe.valid_parts import UnusableError
from runner.storage.atomic import read_state

RECIPE_JSON = "recipe.json"


@dataclass(frozen=True)
class Side:
    """One of the two recipes: its leaves by dotted key, and where each was written. name: what to call it.

    library_arguments: of each stage that has one, the library that it chooses and what that is given.
    """

    name: str
    leaves: dict[str, Any]
    origins: dict[str, str]
    library_arguments: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)

    @classmethod
    def of_recipe(cls, name: str, recipe: Recipe, composed: Composed) -> Side:
        values = redact(recipe.model_dump(mode="json"))
        return cls(name, _leaves(values), value_origins(values, composed), _library_arguments(recipe))

    @classmethod
    def of_run(cls, folder: Path) -> Side:
        file = folder / RECIPE_JSON
        leaves = _leaves(read_state(file))
        return cls(f"run {folder.name}", leaves, dict.fromkeys(leaves, str(file)))


@dataclass(frozen=True)
class Difference:
    """A key that the two recipes do not agree about. `this` and `other`: (value, origin), or None where it is not."""

    key: str
    this: tuple[Any, str] | None
    other: tuple[Any, str] | None

    def as_dict(self) -> dict[str, Any]:
        """JSON form: `{key, this?: {value, origin}, other?: {value, origin}}`."""
        sides = {"this": self.this, "other": self.other}
        return {"key": self.key} | {
            name: {"value": side[0], "origin": side[1]} for name, side in sides.items() if side is not None
        }


def differences(this: Side, other: Side) -> list[Difference]:
    """Every key with two values, or one, in the order of the recipe."""
    found = []
    keys = list(dict.fromkeys([*this.leaves, *other.leaves]))
    sections = list(dict.fromkeys(key.partition(".")[0] for key in keys))
    for key in sorted(keys, key=lambda key: sections.index(key.partition(".")[0])):
        if (key in this.leaves) != (key in other.leaves) or this.leaves.get(key) != other.leaves.get(key):
            found.append(Difference(key, _at(this, key), _at(other, key)))
    return [*found, *_of_libraries(this, other)]


def _of_libraries(this: Side, other: Side) -> Iterator[Difference]:
    """What each library is given, of stages for which the recipes choose different ones."""
    for stage in this.library_arguments.keys() & other.library_arguments.keys():
        (one, args), (another, others) = this.library_arguments[stage], other.library_arguments[stage]
        for name in sorted(args.keys() | others.keys()) if one != another else ():
            if args.get(name) != others.get(name):
                given = (args[name], one) if name in args else None
                yield Difference(f"{stage}: {name}", given, (others[name], another) if name in others else None)


def _library_arguments(recipe: Recipe) -> dict[str, tuple[str, dict[str, Any]]]:
    found = {}
    for name in recipe.pipeline:
        stage = load_stage(name)
        if isinstance(stage, HasLibraryArguments):
            with suppress(RunnerError, UnusableError):  # validate has the mistake
                library, args = stage.library_arguments(recipe)
                found[name] = (library, redact(dict(args)))
    return found


def find_other(name: str, root: Path, config_dir: Path | None) -> Side:
    """The other recipe of a comparison.

    name: a run's folder, a run's id below `root` (or `latest`), a recipe file, or the name of a recipe.
    Raises RecipeError when it is none of these, or a recipe that the schema refuses.
    """
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml"):
        return _recipe_file(name, path, config_dir)
    if folder := _run_folder(path, root):
        return Side.of_run(folder.resolve())
    names = {file.stem for each in (RECIPES_DIR, config_dir) if each for file in (each / "recipe").glob("*.yaml")}
    if name == "latest":
        hint = "Run the recipe first, or say where its runs are: storage.root=..."
        raise RecipeError([Problem("other", name, f"names the newest run, and there is none below {root}", hint)])
    if name not in names:
        message = (
            f"is not a recipe, recipe file, run folder or run id below {root}; recipes: {', '.join(sorted(names))}"
        )
        guess = nearest(name, names)
        raise RecipeError([Problem("other", name, message, f"Did you mean {guess}?" if guess else "")])
    return _composed(name, f"recipe={name}", config_dir)


def _run_folder(path: Path, root: Path) -> Path | None:
    """The folder of a run that is named by its path, or as `runner.pipeline.runs` knows it."""
    path = path.parent if path.name == RECIPE_JSON else path
    if found := next((each for each in (path, root / path) if (each / RECIPE_JSON).is_file()), None):
        return found
    try:
        return find_run(root, str(path))
    except RunnerError:
        return None


def _recipe_file(name: str, path: Path, config_dir: Path | None) -> Side:
    if not path.is_file():
        raise RecipeError([Problem("other", name, f"is not a file: {path.absolute()}", "Correct the path.")])
    return _composed(name, f"recipe={as_text(str(path))}", config_dir)


def _composed(name: str, override: str, config_dir: Path | None) -> Side:
    try:
        composed = compose([override], config_dir)
        recipe, _ = to_recipe(composed)
    except RecipeError as error:
        raise RecipeError([replace(each, origin=f"other={name}: {each.origin}") for each in error.problems]) from error
    return Side.of_recipe(name, recipe, composed)


def _leaves(values: dict[str, Any]) -> dict[str, Any]:
    """Leaves by dotted key, without empty mappings: these say no more than nothing."""
    return {key: value for key, value in flatten(values) if value != {}}


def _at(side: Side, key: str) -> tuple[Any, str] | None:
    return (side.leaves[key], side.origins[key]) if key in side.leaves else None
