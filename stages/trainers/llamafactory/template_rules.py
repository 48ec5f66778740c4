"""Rules about the template that training uses."""

from __future__ import annotations

from collections.abc import Iterator

from runner.errors import Problem, nearest
from stages.sections.recipe import Recipe
from stages.trainers.llamafactory.mappings import LLAMAFACTORY
from stages.trainers.rules import template


def named_template_is_known(recipe: Recipe) -> Iterator[Problem]:
    name, known = recipe.model.template, LLAMAFACTORY.content["templates"]
    if name is None or name in known:
        return
    guess = nearest(name, known)
    message = f"is none of the {len(known)} templates of {LLAMAFACTORY.versioned}"
    hint = f"Did you mean {guess}?" if guess else f"There are: {', '.join(known)}."
    yield Problem("model.template", name, message, hint)


RULES = (named_template_is_known, *template.RULES)
