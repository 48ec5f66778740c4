"""Rules across the sections of a recipe that no single field can state. Pure: a Recipe in, a list of Problems out."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator
from itertools import pairwise

from runner.errors import Problem, RecipeError
from runner.resolve import nearest
from runner.schema import Recipe
from stages import known_stages, load_stage

Rule = Callable[[Recipe], Iterator[Problem]]


def check(recipe: Recipe) -> list[Problem]:
    """Every violated rule."""
    return [problem for rule in RULES for problem in rule(recipe)]


def stages_exist(recipe: Recipe) -> Iterator[Problem]:
    known = known_stages()
    for index, name in enumerate(recipe.pipeline):
        if name not in known:
            guess = nearest(name, known)
            hint = f"Did you mean {guess}?" if guess else "Remove it, or install the package that adds it."
            yield Problem(f"pipeline[{index}]", name, f"is not a stage; there are: {', '.join(sorted(known))}", hint)
        if name in recipe.pipeline[:index]:
            yield Problem(f"pipeline[{index}]", name, "stands in the pipeline twice", "Remove one of them.")
    for name in recipe.resources:
        if name not in known:
            guess = nearest(name, known)
            hint = f"Did you mean resources.{guess}?" if guess else "Remove it."
            yield Problem(f"resources.{name}", None, f"is not a stage; there are: {', '.join(sorted(known))}", hint)


def needs_are_provided_earlier(recipe: Recipe) -> Iterator[Problem]:
    provided: dict[str, str] = {}
    for index, name in enumerate(recipe.pipeline):
        try:
            stage = load_stage(name)
        except RecipeError:
            return  # reported by stages_exist
        for need in stage.needs(recipe):
            if need not in provided:
                yield Problem(
                    f"pipeline[{index}]",
                    name,
                    f"needs {need!r}, which no earlier stage provides",
                    "Put the stage that provides it before this one.",
                )
        provided |= dict.fromkeys(stage.provides, name)


def replicas_are_ordered(recipe: Recipe) -> Iterator[Problem]:
    scaling = recipe.serve.autoscaling
    names = [name for name in ("min_replicas", "initial_replicas", "max_replicas") if scaling.get(name) is not None]
    for low, high in pairwise(names):
        if scaling[low] > scaling[high]:
            yield Problem(
                f"serve.autoscaling.{low}",
                scaling[low],
                f"must be at most {high}={scaling[high]}",
                "Lower the one or raise the other.",
            )


def adapter_fits_engine(recipe: Recipe) -> Iterator[Problem]:
    if "publish" not in recipe.pipeline:
        return
    rank = recipe.train.args.get("lora_rank", recipe.train.lora_rank)
    for section, kwargs in (("infer", recipe.infer.engine_kwargs), ("serve", recipe.serve.engine_kwargs)):
        if section not in recipe.pipeline:
            continue
        most = kwargs.get("max_lora_rank", 16)
        if isinstance(most, int) and isinstance(rank, int) and rank > most:
            yield Problem(
                f"{section}.engine_kwargs.max_lora_rank",
                most,
                f"is below the adapter's rank, train.lora_rank={rank}",
                f"Set {section}.engine_kwargs.max_lora_rank={rank}.",
            )
    loras = recipe.serve.engine_kwargs.get("max_loras", 1)
    if "serve" in recipe.pipeline and recipe.serve.max_adapters_per_replica != loras:
        yield Problem(
            "serve.max_adapters_per_replica",
            recipe.serve.max_adapters_per_replica,
            f"must equal serve.engine_kwargs.max_loras={loras}",
            "Give both the same number.",
        )


def prompt_templates_parse(recipe: Recipe) -> Iterator[Problem]:
    for name in ("system", "user", "assistant"):
        template = getattr(recipe.dataset.prompt, name)
        if template is None:
            continue
        try:
            fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
        except ValueError as error:
            yield Problem(
                f"dataset.prompt.{name}", template, str(error), "Double a brace that is meant as text: {{ }}."
            )
            continue
        if name != "system" and not fields:
            yield Problem(
                f"dataset.prompt.{name}",
                template,
                "names no column of the row, so every row would be the same",
                "Name a column in braces, such as {input}.",
            )


RULES: tuple[Rule, ...] = (
    stages_exist,
    needs_are_provided_earlier,
    replicas_are_ordered,
    adapter_fits_engine,
    prompt_templates_parse,
)
