"""Rules between training and the engine: it loads what is trained, and takes prompts as long."""

from __future__ import annotations

from collections.abc import Iterator

from runner.errors import Problem
from stages.engines.base import load_engine
from stages.sections.recipe import Recipe
from stages.trainers.base import load_trainer


def engines_load_what_is_trained(recipe: Recipe) -> Iterator[Problem]:
    if "train" in recipe.pipeline and {"infer", "serve"} & set(recipe.pipeline):
        yield from load_engine(recipe).refused(load_trainer(recipe).trained(recipe))


def prompt_and_answer_fit(recipe: Recipe) -> Iterator[Problem]:
    yield from load_engine(recipe).requests_fit(recipe, load_trainer(recipe).longest_row(recipe))


RULES = (engines_load_what_is_trained, prompt_and_answer_fit)
