"""The stages, by name. Third parties add theirs through the entry point group `recipe_runner.stages`."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from runner.errors import Problem, RecipeError
from runner.pipeline.members import NameIsKnown
from runner.pipeline.optional import (
    Deletes,
    HasObjective,
    HasRules,
    PassesThrough,
    Rule,
    SavesWhenStopped,
    settings_model,
    settings_of,
)
from runner.pipeline.stage import Stage
from runner.recipe.arguments.mapped import Mapped
from runner.recipe.schema import Recipe, Section
from runner.recipe.valid_parts import UnusableError

ENTRY_POINT_GROUP = "recipe_runner.stages"

# What loading another package's stage may raise when the package is broken.
LOAD_ERRORS = (ImportError, AttributeError, TypeError)

BUILTIN = {
    "ingest": "stages.ingest.stage:Ingest",
    "train": "stages.train.stage:Train",
    "publish": "stages.publish.stage:Publish",
    "infer": "stages.infer.stage:Infer",
    "evaluate": "stages.evaluate.stage:Evaluate",
    "serve": "stages.serve.stage:Serve",
    "query": "stages.query.stage:Query",
    "cleanup": "stages.cleanup.stage:Cleanup",
}


def known_stages() -> dict[str, str]:
    """Every stage that can be named in `pipeline`: name -> "module:Class". A built-in name cannot be replaced."""
    return _third_party() | BUILTIN


@cache
def _third_party() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}


def load_stage(name: str) -> Stage:
    """The named stage. Raises RecipeError naming the legal stages when there is none."""
    known = known_stages()
    if name not in known:
        allowed = ", ".join(sorted(known))
        raise RecipeError([Problem("pipeline", name, f"there is no stage {name!r}; there are: {allowed}")])
    module, _, cls = known[name].partition(":")
    stage: Stage = getattr(import_module(module), cls)()
    settings_model(stage)
    return stage


def loadable(names: Iterable[str]) -> list[Stage]:
    """The named stages, each once, without those that there are not or that do not load."""
    found = []
    for name in dict.fromkeys(names):
        with suppress(RecipeError, *LOAD_ERRORS):
            found.append(load_stage(name))
    return found


def concerned(recipe: Recipe) -> list[Stage]:
    """The built-in stages, whose keys every recipe has, and those of other packages that the recipe names."""
    try:
        return loadable([*BUILTIN, *recipe.pipeline, *recipe.stages])
    except UnusableError:
        return loadable(BUILTIN)


def rules_of_stages(recipe: Recipe) -> list[Rule]:
    """The rules of the stages that the recipe concerns; one that several stages share is there once."""
    found = (rule for stage in concerned(recipe) if isinstance(stage, HasRules) for rule in stage.rules())
    return list(dict.fromkeys(found))


def deleted_artifacts(recipe: Recipe) -> set[str]:
    """Names of artifacts that a stage deletes."""
    found = (stage.deletes(recipe) for stage in concerned(recipe) if isinstance(stage, Deletes))
    return {name for names in found for name in names}


def stop_seconds(recipe: Recipe) -> float:
    """Seconds that the stages of the pipeline need at most to save their work when the run is interrupted."""
    saving = (stage for stage in loadable(recipe.pipeline) if isinstance(stage, SavesWhenStopped))
    return max((stage.stop_s(recipe) for stage in saving), default=0.0)


def objective_of(recipe: Recipe) -> tuple[str, HasObjective | None]:
    """The figure that a sweep of the recipe looks at, and the stage that has it; ("", None) for a recipe without."""
    having = (stage for stage in concerned(recipe) if isinstance(stage, HasObjective))
    return next(((stage.objective(recipe), stage) for stage in having), ("", None))


def mappings(names: Iterable[str] | None = None) -> list[Mapped]:
    """The pass-through mappings of the named stages; None: of every stage."""
    stages = loadable(known_stages() if names is None else names)
    found = (each for stage in stages if isinstance(stage, PassesThrough) for each in stage.mappings())
    return list({(mapped.key, mapped.only_for): mapped for mapped in found}.values())


def choices(names: Iterable[str] | None = None) -> dict[str, tuple[str, ...]]:
    """Key -> the names that the named stages know there, such as those of libraries; None: of every stage."""
    stages = loadable(known_stages() if names is None else names)
    rules = (rule for stage in stages if isinstance(stage, HasRules) for rule in stage.rules())
    return {rule.key: rule.names for rule in rules if isinstance(rule, NameIsKnown)}


def describe_stage(name: str) -> str:
    """The first line of the stage's documentation, or why it cannot be loaded."""
    try:
        text = type(load_stage(name)).__doc__ or ""
    except LOAD_ERRORS as error:
        return f"cannot be loaded: {error}"
    return text.strip().partition("\n")[0]


def stage_settings() -> dict[str, type[Section]]:
    """What describes the keys under `stages.<name>`, of every stage that loads and has some."""
    found: dict[str, type[Section]] = {}
    for name in known_stages():
        with suppress(*LOAD_ERRORS):
            if (model := settings_model(load_stage(name))) is not None:
                found[name] = model
    return found


def with_settings(recipe: Recipe) -> Recipe:
    """The valid recipe with every key of its stages' own settings, those with default values too."""
    described = {name: load_stage(name) for name in recipe.pipeline}
    filled = {
        name: settings_of(stage, recipe).model_dump(mode="json")
        for name, stage in described.items()
        if settings_model(stage) is not None
    }
    return recipe.model_copy(update={"stages": {**recipe.stages, **filled}}) if filled else recipe
