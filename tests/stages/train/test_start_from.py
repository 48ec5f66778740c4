"""Training that continues another run's adapter or model: it begins where that ended, and learns preferences against
it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from runner.cluster.session import RaySession
from runner.errors import RunnerError
from runner.pipeline.stage import StageResult
from runner.storage.artifact import Artifact
from stages.sections.recipe import Recipe
from stages.train.start import start_fits
from tests.stages.train import cases
from tests.stages.train.cases import Watch, inputs, preferences, ray_session, train, watch
from tests.stages.train.finished import finished_run

__all__ = ["inputs", "ray_session", "watch"]  # fixtures
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.filterwarnings("default")]

RUN = "20260101-120000-abcdef"
WEIGHTS = "adapter_model.safetensors"
MODEL = "model.safetensors"


def recipe_of(root: Path, trainer: str = "llamafactory", stage: str = "sft", **keys: Any) -> Recipe:
    recipe = cases.recipe_of(max_steps=1)
    storage = recipe.storage.model_copy(update={"root": str(root)})
    changes = {"trainer": trainer, "stage": stage, "start_from": RUN, "learning_rate": 1e-12, **keys}
    return recipe.model_copy(update={"storage": storage, "train": recipe.train.model_copy(update=changes)})


@pytest.fixture(scope="module")
def first(inputs: dict[str, Artifact], ray_session: RaySession, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(root of the runs, what the first run has trained)."""
    return ended(inputs, ray_session, tmp_path_factory.mktemp("runs"), "lora")


@pytest.fixture(scope="module")
def first_model(
    inputs: dict[str, Artifact], ray_session: RaySession, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, StageResult]:
    """As `first`, of a run that has trained the whole model."""
    return ended(inputs, ray_session, tmp_path_factory.mktemp("models"), "full")


def ended(inputs: dict[str, Artifact], session: RaySession, root: Path, kind: str) -> tuple[Path, StageResult]:
    """A run that has ended. kind: what it trains."""
    recipe = cases.recipe_of(max_steps=16, finetuning_type=kind)
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"learning_rate": 2e-2})})
    result = train(recipe, inputs, session, root / "tiny" / RUN / "train")
    finished_run(root / "tiny" / RUN, recipe, [*result.artifacts, inputs["model"]])
    return root, result


def whole(recipe: Recipe) -> Recipe:
    """The recipe with all weights trained."""
    args = {**recipe.train.args, "finetuning_type": "full"}
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"args": args})})


@pytest.mark.parametrize("trainer", ["llamafactory", "accelerate"])
def test_it_begins_with_the_weights_of_the_other_run(
    trainer: str, first: tuple[Path, StageResult], inputs: dict[str, Artifact], ray_session: RaySession, tmp_path: Path
) -> None:
    root, before = first
    after = train(recipe_of(root, trainer), inputs, ray_session, tmp_path / "train")
    old, new = (load_file(result.artifacts[0].path / WEIGHTS) for result in (before, after))
    assert old.keys() == new.keys()
    assert max(float(abs(old[name] - new[name]).max()) for name in old) < 1e-8
    assert max(float(abs(old[name]).max()) for name in old if "lora_B" in name) > 1e-4, "the first run learned nothing"
    args = json.loads((after.artifacts[1].path / "args.json").read_text())
    assert str(root) not in json.dumps(args)


@pytest.mark.parametrize("trainer", ["llamafactory", "accelerate"])
def test_preferences_are_learned_against_it(
    trainer: str, first: tuple[Path, StageResult], inputs: dict[str, Artifact], ray_session: RaySession, tmp_path: Path
) -> None:
    """Before anything is learned the policy is the reference, and the loss of DPO is the logarithm of 2."""
    rows = {**inputs, "train_set": preferences("dpo", tmp_path)}
    result = train(recipe_of(first[0], trainer, "dpo"), rows, ray_session, tmp_path / "run" / "train")
    assert result.metrics["loss_first"] == pytest.approx(math.log(2), abs=1e-4)
    assert {entry.path for entry in result.artifacts[0].files} >= {WEIGHTS, "adapter_config.json"}


@pytest.mark.parametrize("trainer", ["llamafactory", "accelerate"])
def test_it_begins_with_the_whole_model_of_the_other_run(
    trainer: str,
    first_model: tuple[Path, StageResult],
    inputs: dict[str, Artifact],
    ray_session: RaySession,
    tmp_path: Path,
) -> None:
    root, before = first_model
    after = train(whole(recipe_of(root, trainer)), inputs, ray_session, tmp_path / "train")
    base, old, new = (load_file(path / MODEL) for path in (inputs["model"].path, *folders(before, after)))
    assert old.keys() == new.keys()
    assert max(float(abs(old[name] - new[name]).max()) for name in old) < 1e-8
    assert max(float(abs(old[name] - base[name]).max()) for name in old) > 1e-2, "the first run learned nothing"
    args = json.loads((after.artifacts[1].path / "args.json").read_text())
    assert args["model_name_or_path"] == "org/tiny"
    assert str(root) not in json.dumps(args)


def folders(*results: StageResult) -> list[Path]:
    return [result.artifacts[0].path for result in results]


def test_an_adapter_is_not_continued_as_a_model_nor_trained_on_one(
    first: tuple[Path, StageResult], first_model: tuple[Path, StageResult]
) -> None:
    (found,) = start_fits(whole(recipe_of(first[0])))
    assert (found.key, found.hint) == ("train.start_from", "Set train.args.finetuning_type=lora, or remove it.")
    (found,) = start_fits(recipe_of(first_model[0]))
    assert (found.key, found.hint) == ("train.start_from", "Set train.args.finetuning_type=full, or remove it.")
    assert list(start_fits(whole(recipe_of(first_model[0])))) == []


@pytest.mark.chaos
@pytest.mark.parametrize("trainer", ["llamafactory", "accelerate"])
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_a_killed_worker_resumes(
    stage: str,
    trainer: str,
    first: tuple[Path, StageResult],
    inputs: dict[str, Artifact],
    ray_session: RaySession,
    watch: Watch,
    tmp_path: Path,
) -> None:
    recipe = recipe_of(first[0], trainer, stage, learning_rate=1e-3)
    args = {**recipe.train.args, "max_steps": 600, "save_steps": 50}
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"args": args})})
    rows = inputs if stage == "sft" else {**inputs, "train_set": preferences("dpo", tmp_path)}
    cases.check_a_killed_worker_resumes(recipe, rows, ray_session, watch, tmp_path, kill_at=160)


def test_another_base_model_is_refused(
    first: tuple[Path, StageResult], inputs: dict[str, Artifact], ray_session: RaySession, tmp_path: Path
) -> None:
    other = {**inputs, "model": inputs["model"].model_copy(update={"sha256": "0" * 64})}
    with pytest.raises(RunnerError, match="another base model"):
        train(recipe_of(first[0]), other, ray_session, tmp_path / "train")


def test_a_recipe_that_describes_another_adapter_is_refused(first: tuple[Path, StageResult]) -> None:
    found = {problem.key: problem for problem in start_fits(recipe_of(first[0], lora_rank=4, lora_target="q_proj"))}
    assert set(found) == {"train.lora_rank", "train.lora_target", "train.args.lora_alpha"}
    assert "which has 8" in found["train.lora_rank"].message
    assert list(start_fits(recipe_of(first[0]))) == []
