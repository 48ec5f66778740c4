"""Rules about stages that run in an environment of their own."""

from __future__ import annotations

from collections.abc import Iterator

from runner.cluster import environments
from runner.cluster.environments import Chosen, command, may_be_made, unusable
from runner.cluster.reach import is_this_machine
from runner.errors import Problem
from runner.pipeline.fingerprint import library_version
from runner.pipeline.optional import environment_of, environments_of
from runner.pipeline.registry import loadable
from runner.recipe.machine import gpu_models
from runner.recipe.schema import Recipe


def environment_is_made(recipe: Recipe) -> Iterator[Problem]:
    """Where the recipe could run on this machine; nodes elsewhere are asked when the stage starts.

    What the operator lets a run make by itself need not be there.
    """
    accelerator = recipe.cluster.accelerator
    without_gpu = accelerator == "gpu" and not gpu_models()
    elsewhere = without_gpu or not is_this_machine(recipe.cluster.address) or library_version("ray") is None
    if elsewhere or may_be_made():
        return
    every = [each for stage in loadable(recipe.pipeline) for each in environments_of(stage, recipe)]
    for chosen in {each.name: each for each in reversed(every)}.values():
        if reason := unusable(chosen.name, accelerator):
            message = f"runs in the environment {chosen.name}, which {reason}"
            yield Problem(chosen.key, chosen.value, message, f"Run: {command(chosen.name, accelerator)}")


def packages_are_the_environments(recipe: Recipe) -> Iterator[Problem]:
    for stage, chosen in _chosen(recipe):
        given = recipe.resources_of(stage).runtime_env
        for field in environments.PACKAGES:
            if field in given:
                message = f"does not go with {chosen.key}={chosen.value}, which has the packages of its own environment"
                yield Problem(f"resources.{stage}.runtime_env.{field}", given[field], message, "Remove it.")


def _chosen(recipe: Recipe) -> Iterator[tuple[str, Chosen]]:
    for stage in loadable(recipe.pipeline):
        if chosen := environment_of(stage, recipe):
            yield stage.name, chosen


RULES = (environment_is_made, packages_are_the_environments)
