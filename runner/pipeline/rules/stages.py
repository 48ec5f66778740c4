"""Rules about the pipeline: which stages, in which order, and what they do with each other's results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from runner.cluster.reach import is_this_machine
from runner.errors import Problem, RecipeError, nearest
from runner.pipeline.optional import settings_model
from runner.pipeline.registry import LOAD_ERRORS, known_stages, load_stage
from runner.pipeline.runs import ANOTHER_ROOT, of_the_system, unusable_root
from runner.pipeline.stage import Stage
from runner.recipe.extension import recipe_class
from runner.recipe.machine import installed, pip_install
from runner.recipe.schema import Recipe
from runner.recipe.schema_problems import settings_problems

_OWN_FOLDERS = {"latest", "artifacts", "base_predictions", "mlruns", "sweeps"}
_TRACKERS = {"mlflow": "mlflow-skinny"}  # what pip calls the module of `tracking`


def stages_exist(recipe: Recipe) -> Iterator[Problem]:
    known = known_stages()
    for index, name in enumerate(recipe.pipeline):
        if name not in known:
            guess = nearest(name, known)
            hint = f"Did you mean {guess}?" if guess else "Remove it, or install the package that adds it."
            yield Problem(f"pipeline[{index}]", name, f"is not a stage; there are: {', '.join(sorted(known))}", hint)
        if name in recipe.pipeline[:index]:
            yield Problem(f"pipeline[{index}]", name, "stands in the pipeline twice", "Remove one of them.")


def resources_name_stages(recipe: Recipe) -> Iterator[Problem]:
    known = known_stages()
    for name in recipe.resources:
        if name not in known:
            guess = nearest(name, known)
            hint = f"Did you mean resources.{guess}?" if guess else "Remove it."
            yield Problem(f"resources.{name}", None, f"is not a stage; there are: {', '.join(sorted(known))}", hint)


def stages_load(recipe: Recipe) -> Iterator[Problem]:
    known = known_stages()
    for index, name in enumerate(recipe.pipeline):
        if name in known:
            try:
                load_stage(name)
            except LOAD_ERRORS as error:
                hint = "Install or repair the package that adds it."
                yield Problem(f"pipeline[{index}]", name, f"cannot be loaded from {known[name]}: {error}", hint)


def _stage(name: str) -> Stage | None:
    """The named stage; None when there is none, or a package's own stage does not load."""
    try:
        return load_stage(name)
    except (RecipeError, *LOAD_ERRORS):
        return None


def _provided_by(name: str) -> tuple[str, ...]:
    stage = _stage(name)
    return stage.provides if stage else ()


def needs_are_provided_earlier(recipe: Recipe) -> Iterator[Problem]:
    provided: set[str] = set()
    for index, name in enumerate(recipe.pipeline):
        if (stage := _stage(name)) is None:
            return  # reported by stages_exist and stages_load; what it provides is not known
        missing = [need for need in stage.needs(recipe) if need not in provided]
        if missing:
            providers = dict.fromkeys(each for need in missing for each in known_stages() if need in _provided_by(each))
            message = f"needs {' and '.join(map(repr, missing))}, which no earlier stage provides"
            hint = f"Put {' and '.join(providers)} before it." if providers else "Add the stage that provides it."
            yield Problem(f"pipeline[{index}]", name, message, hint)
        provided |= set(stage.provides)


def stage_settings_are_valid(recipe: Recipe) -> Iterator[Problem]:
    """Keys under `stages`: each stage describes its own."""
    known, given = known_stages(), recipe.stages
    for name in dict.fromkeys([*given, *recipe.pipeline]):
        stage = _stage(name)
        if name in given and name not in known:
            guess = nearest(name, known)
            hint = f"Did you mean stages.{guess}?" if guess else "Remove it, or install the package that adds it."
            message = f"is not a stage; there are: {', '.join(sorted(known))}"
            yield Problem(f"stages.{name}", None, message, hint)
        elif stage is not None and (model := settings_model(stage)) is not None:
            yield from settings_problems(model, given.get(name, {}), f"stages.{name}")
        elif stage is not None and name in given:
            hint = f"Its keys are under {name}." if name in recipe_class().model_fields else "Remove it."
            yield Problem(f"stages.{name}", None, "is a stage without settings of this kind", hint)


def name_is_free(recipe: Recipe) -> Iterator[Problem]:
    """Run folders lie in a folder of the recipe's name, next to what the runner itself keeps below `storage.root`."""
    if recipe.name in _OWN_FOLDERS:
        yield Problem("name", recipe.name, "is a name that the runner uses below storage.root", "Choose another name.")


def runs_have_a_folder(recipe: Recipe) -> Iterator[Problem]:
    root = Path(recipe.storage.root).expanduser().absolute()
    if wrong := unusable_root(root):
        yield Problem("storage.root", recipe.storage.root, f"cannot be used: {wrong}", ANOTHER_ROOT)
    for name, folder in (("artifacts", recipe.storage.artifacts), ("cache", recipe.storage.cache)):
        place = Path(folder).expanduser().absolute()
        if wrong and place.is_relative_to(root):
            continue
        here = is_this_machine(recipe.cluster.address)
        if "://" not in folder and (why := unusable_root(place) if here else of_the_system(place)):
            yield Problem(f"storage.{name}", folder, f"cannot be used: {why}", "Name a folder of its own.")


def tracker_is_installed(recipe: Recipe) -> Iterator[Problem]:
    """Only for a cluster of this machine: elsewhere the process that tracks has other packages."""
    name = recipe.tracking
    if name is not None and is_this_machine(recipe.cluster.address) and not installed(name):
        hint = pip_install(_TRACKERS[name])
        yield Problem("tracking", name, f"needs the package {name}, which is not installed here", hint)


RULES = (
    name_is_free,
    stages_exist,
    resources_name_stages,
    stages_load,
    stage_settings_are_valid,
    needs_are_provided_earlier,
    runs_have_a_folder,
    tracker_is_installed,
)
