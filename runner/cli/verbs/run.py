"""`run` and `plan`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from runner.cli.asked import Asked, print_json, title
from runner.errors import EXIT_DONE, printable
from runner.report.terminal import Report


def run(jobs: Sequence[Asked]) -> int:
    """Run the one recipe; the sweep of several is `runner.sweep.grid`'s. Returns the exit code."""
    from runner.pipeline import engine
    from runner.pipeline.runs import make_root, remember_root
    from runner.report.observers import observers

    (asked,) = jobs
    make_root(asked.root)
    remember_root(asked.root)
    return engine.run(
        asked.recipe,
        asked.options,
        asked.line.text,
        observers(Report(verbose=asked.line.verbose)),
        asked.composed.origins,
    )[0]


def plan(jobs: Sequence[Asked]) -> int:
    """Print what would run, why, and what is known of its time and memory."""
    documents = [_plan(asked, title(asked, jobs)) for asked in jobs]
    if jobs[0].options.format == "json":
        print_json(documents[0] if len(documents) == 1 else {"jobs": documents})
    return EXIT_DONE


def _plan(asked: Asked, heading: str) -> dict[str, Any]:
    """The plan of one job, shown unless JSON is asked for."""
    from runner.pipeline import plan
    from runner.pipeline.estimates import estimate
    from runner.pipeline.rules.check import trusted_values
    from runner.pipeline.runs import unusable_root

    recipe, past = asked.recipe, _past_runs(asked)
    if why := unusable_root(asked.root, to_write=True):
        past.remarks.append(f"storage.root={asked.root} cannot be used: {why}")
    for remark in past.remarks:
        print(printable(remark), file=sys.stderr)
    made = plan.build(recipe, asked.options, past)
    found = estimate(recipe, made, past)
    if asked.options.format != "json":
        print(printable(heading), end="")
        Report().plan_in_full(recipe, made.steps, found)
    figures = {name: [each.as_dict() for each in listed] for name, listed in found.items()}
    steps = [step.as_dict(recipe) | {"estimates": figures.get(step.name, [])} for step in made.steps]
    return {"recipe": recipe.name, "trusted": trusted_values(recipe), "steps": steps}


def _past_runs(asked: Asked) -> Any:
    """Earlier runs here, and those of other machines where their store is a folder."""
    from runner.pipeline.plan import PastRuns
    from runner.pipeline.shared_cache import SharedCache, is_shared

    recipe, shared = asked.recipe, None
    if is_shared(recipe) and "://" not in recipe.storage.artifacts:
        shared = SharedCache(recipe, lambda remark: print(printable(remark), file=sys.stderr))
    past = PastRuns(asked.root, shared)
    if is_shared(recipe) and shared is None:
        past.remarks.append(f"results of other machines in {recipe.storage.artifacts} are not looked at in a plan")
    return past
