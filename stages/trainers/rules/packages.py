"""Packages that some arguments of transformers' trainer need, and trackers that a run is reported to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from runner.cluster import environments
from runner.errors import Problem, nearest
from runner.pipeline.optional import Rule
from runner.recipe.rules.arguments import NotAccepted
from stages.sections.recipe import Recipe
from stages.trainers.rules.conflicts import Argument

Test = Callable[[Any], bool]
# Trackers of transformers 5: the module that each needs, and what pip calls it. `all` and `none` name several or none.
TRACKERS = {
    "azure_ml": ("azureml.core", "azureml-core"),
    "clearml": ("clearml", "clearml"),
    "codecarbon": ("codecarbon", "codecarbon"),
    "comet_ml": ("comet_ml", "comet_ml"),
    "dagshub": ("dagshub", "dagshub mlflow"),
    "dvclive": ("dvclive", "dvclive"),
    "flyte": ("flytekit", "flytekit"),
    "kubeflow": ("kubeflow", "kubeflow"),
    "mlflow": ("mlflow", "mlflow"),
    "neptune": ("neptune", "neptune"),
    "swanlab": ("swanlab", "swanlab"),
    "tensorboard": ("tensorboard|tensorboardX", "tensorboard"),
    "trackio": ("trackio", "trackio"),
    "wandb": ("wandb", "wandb"),
}
_NO_TRACKERS = ("none", "all")


@dataclass(frozen=True)
class Need:
    """A package without which an argument's value fails, or is passed over. module: to import. pip: to install."""

    argument: str
    module: str
    pip: str
    holds: Test = bool


def one_of(*values: str) -> Test:
    return lambda value: value in values


def has_part(*parts: str) -> Test:
    return lambda value: isinstance(value, str) and any(part in value for part in parts)


OPTIMIZERS = (
    Need("optim", "bitsandbytes", "bitsandbytes", has_part("bnb", "paged_", "lion_", "ademamix", "adamw_8bit")),
    Need("optim", "galore_torch", "galore-torch", has_part("galore_")),
    Need("optim", "apollo_torch", "apollo-torch", has_part("apollo_")),
    Need("optim", "lomo_optim", "lomo-optim", has_part("lomo")),
    Need("optim", "grokadamw", "grokadamw", has_part("grokadamw")),
    Need("optim", "schedulefree", "schedulefree", has_part("schedule_free")),
    Need("optim", "torchao", "torchao", one_of("adamw_torch_4bit", "adamw_torch_8bit")),
    Need("optim", "apex", "apex", one_of("adamw_apex_fused")),
    Need("optim", "torchdistx", "torchdistx", one_of("adamw_anyprecision")),
    Need("optim", "optimi", "torch-optimi", one_of("stable_adamw")),
)


def packages_are_locked(environment: str, needed: Callable[[Recipe], Iterator[tuple[Need, Any]]]) -> Rule:
    """The rule that the environment's lock has the packages that a recipe's arguments need."""

    def rule(recipe: Recipe) -> Iterator[Problem]:
        kind = recipe.cluster.accelerator
        for need, value in needed(recipe) if "train" in recipe.pipeline else ():
            if all(environments.version(environment, name, kind) is None for name in need.pip.split()):
                message = f"needs {need.pip.split()[0]}, which the environment {environment} does not have"
                hint = f"Remove it; requirements/environments/{environment}-{kind}.lock lists what there is."
                yield Problem(f"train.args.{need.argument}", value, message, hint)

    return rule


def trackers_needed(argument: Argument, recipe: Recipe) -> Iterator[tuple[Need, Any]]:
    """The packages of the trackers that the recipe names, each with the tracker's name."""
    for name in _trackers(argument, recipe):
        if isinstance(name, str) and name in TRACKERS:
            yield Need("report_to", *TRACKERS[name]), name


def trackers_exist(argument: Argument) -> Rule:
    """The rule that `report_to` names trackers of transformers."""
    return partial(_trackers_exist, argument)


def _trackers_exist(argument: Argument, recipe: Recipe) -> Iterator[Problem]:
    names = _trackers(argument, recipe)
    for name in names:
        if not isinstance(name, str) or name not in (*TRACKERS, *_NO_TRACKERS):
            guess = nearest(str(name), TRACKERS)
            message = f"names no tracker of transformers; there are: {', '.join(TRACKERS)}"
            hint = f"Did you mean {guess}?" if guess else "Set it to none."
            yield NotAccepted("train.args.report_to", name, message, hint)
        elif name in _NO_TRACKERS and len(names) > 1:
            yield Problem("train.args.report_to", name, "does not go with other trackers", "Remove it.")


def _trackers(argument: Argument, recipe: Recipe) -> list[Any]:
    value = argument(recipe, "report_to")
    return value if isinstance(value, list) else [value] if value is not None else []
