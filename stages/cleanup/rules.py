"""The rule about what is deleted."""

from __future__ import annotations

from collections.abc import Iterator

from runner.errors import Problem, nearest
from runner.pipeline.registry import loadable
from stages.sections.recipe import Recipe


def deleted_artifacts_are_made(recipe: Recipe) -> Iterator[Problem]:
    made = {name for stage in loadable(recipe.pipeline) for name in stage.provides}
    for index, name in enumerate(recipe.cleanup.delete):
        if name not in made:
            guess = nearest(name, made)
            hint = f"Did you mean {guess}?" if guess else "Remove it."
            message = f"is not an artifact of this pipeline; there are: {', '.join(sorted(made)) or 'none'}"
            yield Problem(f"cleanup.delete[{index}]", name, message, hint)


RULES = (deleted_artifacts_are_made,)
