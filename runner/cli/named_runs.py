"""Recipes of finished runs, for verbs that are asked about runs instead of a recipe: `serve`, `deploy`, `export`."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner.cli.asked import Call
from runner.errors import Problem, RecipeError, UsageError
from runner.pipeline.runs import LATEST, find_run, known_roots, state_of_run
from runner.recipe.extension import recipe_class
from runner.recipe.load import Composed, section_of
from runner.recipe.schema import RunOptions
from runner.sweep.state import Sweep


def named_runs(call: Call) -> list[Path]:
    """Folders of the runs that the command line names: by `runs`, `sweep`, or the newest of the recipe.

    Raises UsageError for one that cannot be found.
    """
    options, recipe = call.options, call.recipe_name()
    if options.sweep_id is not None:
        return [find_run(call.root, name) for name in best_of_sweep(call.root, options)]
    if not options.runs and recipe is None:
        verb = call.line.verb
        hint = "Name them: runs=[latest], runs=[ID,ID], recipe=NAME for its newest"
        hint += ", or sweep=ID top=3 for a sweep's best." if verb == "serve" else "."
        raise UsageError(f"{verb} needs the runs to {verb}", hint)
    return [find_named(call, name) for name in options.runs or [LATEST]]


def find_named(call: Call, name: str) -> Path:
    """The run's folder: below storage.root, else wherever runs were made before, unless the root is given."""
    elsewhere = () if call.composed.is_given("storage.root") else tuple(known_roots())
    return find_run(call.root, name, call.recipe_name(), elsewhere)


def recipe_of_run(composed: Composed, folder: Path) -> Composed:
    """The run's recipe, below the recipe keys that the command line gives."""
    fields = recipe_class().model_fields
    values = {key: value for key, value in state_of_run(folder, "recipe.json").items() if key in fields}
    for dotted in sorted(composed.given - {"name", "recipe"}):
        if dotted in fields and section_of(fields[dotted].annotation):
            hint = f"Give single keys, {dotted}.KEY=VALUE, or run the recipe itself."
            raise RecipeError([Problem(dotted, None, "swaps a whole part, and the recipe is the run's", hint)])
        if dotted.partition(".")[0] in fields:
            _copy(composed.values, values, dotted.split("."))
    values["storage"]["root"] = str(folder.parent.parent)
    return replace(Composed(values, []), overrides=composed.overrides, settings=composed.settings, recorded=True)


def serving(call: Call) -> tuple[Composed, RunOptions]:
    """The first run's recipe with the others in `serve.runs`, and options that run just serve and query.

    Keys given on the command line win over the run's recipe; the endpoint stays up until Ctrl-C unless they say
    otherwise. Raises UsageError when no run is named, or one cannot be found.
    """
    first, *others = named_runs(call)
    served = recipe_of_run(call.composed, first)
    serve = served.values.setdefault("serve", {})
    serve["runs"] = [folder.name for folder in others]
    if not call.composed.is_given("serve.keep_alive"):
        serve["keep_alive"] = True
    only = [name for name in ("serve", "query") if name in served.values["pipeline"]]
    if "serve" not in only:
        raise UsageError(f"the pipeline of the run {first.name} has no serve stage", "Name another run first.")
    return served, RunOptions(only=only, force=only)


def best_of_sweep(root: Path, options: RunOptions) -> list[str]:
    """Ids of the sweep's best runs, best first. Raises RunnerError when there is no such sweep, or no score."""
    folder = root / "sweeps" / str(options.sweep_id)
    try:
        sweep = Sweep.load(folder)
    except FileNotFoundError:
        raise UsageError(
            f"there is no sweep {options.sweep_id!r} below {root / 'sweeps'}", "Name one of its folders."
        ) from None
    scored = [job for job in sweep.jobs if job.status == "done" and job.value is not None]
    best = sorted(scored, key=lambda job: -(job.value or 0.0))[: options.top]
    if not best:
        raise UsageError(f"no job of the sweep {options.sweep_id} has a score", "Continue the sweep first.")
    return [job.run_id for job in best]


def _copy(source: Any, target: dict[str, Any], path: list[str]) -> None:
    for part in path[:-1]:
        source, target = source[part], target.setdefault(part, {})
    target[path[-1]] = deepcopy(source[path[-1]])
