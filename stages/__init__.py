"""The stages, by name. Third parties add theirs through the entry point group `recipe_runner.stages`."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from runner.errors import Problem, RecipeError
from stages.base import Stage

ENTRY_POINT_GROUP = "recipe_runner.stages"

BUILTIN = {
    "ingest": "stages.ingest:Ingest",
    "train": "stages.train:Train",
    "publish": "stages.publish:Publish",
    "infer": "stages.infer:Infer",
    "evaluate": "stages.evaluate:Evaluate",
    "serve": "stages.serve:Serve",
    "query": "stages.query:Query",
    "cleanup": "stages.cleanup:Cleanup",
}


def known_stages() -> dict[str, str]:
    """Every stage that can be named in `pipeline`: name -> "module:Class". A built-in name cannot be taken over."""
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
    return stage
