"""Token ids without torch: tokenizers need none of it, and importing it takes three quarters of the time.

transformers imports torch wherever it is installed. A task with the resources of `in_own_process` has a process that no
other task gets; there `begin` has it take torch as not installed, which it provides for. Where workers are forked, the
server of these processes has done so before.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cluster import environments
from runner.cluster.environments.ahead import ImportAhead
from stages.models.vision import model_type_of_vision

if TYPE_CHECKING:
    from runner.recipe.schema import StageResources
    from stages.sections.recipe import Recipe

_BEGIN = f"{__name__}:begin"
_VARIABLE = "RECIPE_RUNNER_WITHOUT_TORCH"
_VARIABLES = {_VARIABLE: "1", "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1"}  # it warns where there is no torch


def possible(recipe: Recipe, model: Path) -> bool:
    """Whether the recipe's prompts need no more than the tokenizer in the model's folder: image processors,
    LLaMA-Factory's templates and a model's own code import torch. False where the folder cannot be seen from here."""
    return likely(recipe) and (model / "config.json").is_file() and model_type_of_vision(model) is None


def likely(recipe: Recipe) -> bool:
    """Whether it is `possible` as far as is known before the model is there."""
    return not recipe.model.trust_remote_code and recipe.model.template is None


def variables(recipe: Recipe, model: Path) -> dict[str, str]:
    """Those of a process that has no torch, none where it is needed."""
    return dict(_VARIABLES) if possible(recipe, model) else {}


def in_own_process(resources: StageResources, environment: str | None, import_ahead: ImportAhead) -> StageResources:
    """The resources, in a process that has no torch. environment: whose interpreter it has, and whose imports begin
    now; None for that of the resources."""
    there = environments.with_variables(resources.runtime_env, _VARIABLES)
    if environment is not None:
        there.pop("py_executable", None)
        there = import_ahead(environment, [_BEGIN], there)
    return resources.model_copy(update={"runtime_env": there})


def begin() -> None:
    """Import transformers for tokenizers; does nothing in any other process than that of `in_own_process`.

    torch is hidden for that long: `datasets` imports what `sys.modules` names.
    """
    if not os.environ.get(_VARIABLE) or "torch" in sys.modules:
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        from transformers import AutoTokenizer  # noqa: F401
    finally:
        del sys.modules["torch"]
