"""Training by TRL on Accelerate, in its own environment: a tiny random model, a few steps, on this machine's CPUs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.cluster.session import RaySession
from runner.errors import RunnerError
from runner.storage.artifact import Artifact
from stages.sections.recipe import Recipe
from stages.trainers.base import trainer_named
from tests.e2e.conftest import run_recipe
from tests.stages.train import cases
from tests.stages.train.cases import (
    NUM_ROWS,
    Watch,
    check_a_killed_worker_resumes,
    inputs,
    preferences,
    ray_session,
    saved_by_time,
    steps_of,
    stop_at,
    train,
    watch,
)  # fmt: skip
from tests.tiny_model import CHAT_TEMPLATE

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800), pytest.mark.filterwarnings("default")]
__all__ = ["inputs", "ray_session", "watch"]  # fixtures


def recipe_of(num_workers: int = 1, stage: str = "sft", **args: Any) -> Recipe:
    """The recipe of LLaMA-Factory's tests with another trainer."""
    recipe = cases.recipe_of(num_workers, **args)
    return recipe.model_copy(
        update={"train": recipe.train.model_copy(update={"trainer": "accelerate", "stage": stage})}
    )


def test_the_adapter_is_portable_and_the_log_has_the_curves(
    inputs: dict[str, Artifact], ray_session: RaySession, tmp_path: Path
) -> None:
    recipe = recipe_of(val_size=4, eval_strategy="steps", eval_steps=2)
    weights, log = (result := train(recipe, inputs, ray_session, tmp_path / "train")).artifacts
    names = {entry.path for entry in weights.files}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "chat_template.jinja"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".md"))]
    described = json.loads((weights.path / "adapter_config.json").read_text())
    assert (described["base_model_name_or_path"], described["r"], described["lora_alpha"]) == ("org/tiny", 8, 16)
    assert str(tmp_path) not in "".join(path.read_text(errors="ignore") for path in weights.path.glob("*.json"))
    assert weights.meta["rank"] == 8
    figures = result.metrics
    assert (figures["num_steps"], figures["num_samples"], figures["num_workers"]) == (6, NUM_ROWS - 4, 1)
    assert figures["loss_last"] < figures["loss_first"]
    points = trainer_named("accelerate").log_points(log.path)
    assert [point["current_steps"] for point in points if "loss" in point] == list(range(1, 7))
    assert [point["current_steps"] for point in points if "eval_loss" in point] == [2, 4, 6]


def test_the_first_loss_is_that_of_the_other_trainer(
    inputs: dict[str, Artifact], ray_session: RaySession, tmp_path: Path
) -> None:
    first = [
        train(recipe, inputs, ray_session, tmp_path / recipe.train.trainer).metrics["loss_first"]
        for recipe in (recipe_of(max_steps=2), cases.recipe_of(max_steps=2))
    ]
    assert first[0] == pytest.approx(first[1], abs=5e-4)


def test_two_workers_train_a_whole_model(inputs: dict[str, Artifact], ray_session: RaySession, tmp_path: Path) -> None:
    recipe = recipe_of(num_workers=2, finetuning_type="full")
    result = train(recipe, inputs, ray_session, tmp_path / "train")
    assert (result.metrics["num_steps"], result.metrics["num_workers"]) == (NUM_ROWS // 4, 2)
    assert {"model.safetensors", "config.json"} <= {entry.path for entry in result.artifacts[0].files}


def test_a_killed_worker_resumes_and_makes_the_same_adapter(
    inputs: dict[str, Artifact], ray_session: RaySession, watch: Watch, tmp_path: Path
) -> None:
    recipe = recipe_of(max_steps=120, save_steps=20)
    check_a_killed_worker_resumes(recipe, inputs, ray_session, watch, tmp_path, kill_at=65)


def test_a_killed_training_resumes_from_a_checkpoint_that_was_saved_by_time(
    inputs: dict[str, Artifact], ray_session: RaySession, watch: Watch, tmp_path: Path
) -> None:
    recipe = saved_by_time(recipe_of(max_steps=400), every_s=0.5)
    check_a_killed_worker_resumes(recipe, inputs, ray_session, watch, tmp_path, kill_at=250)


def test_a_stopped_training_saves_a_checkpoint_that_a_new_attempt_resumes_from(
    inputs: dict[str, Artifact], watch: Watch, ray_session: RaySession, tmp_path: Path
) -> None:
    recipe, folder = recipe_of(max_steps=200, save_steps=1000), tmp_path / "train"
    (saved,) = stop_at(recipe, inputs, ray_session, watch, folder, step=20)
    stopped_at = steps_of(saved)
    assert 20 <= stopped_at < 200
    assert train(recipe, inputs, ray_session, folder).metrics["resumed_at_step"] == stopped_at


@pytest.mark.parametrize("stage", ["dpo", "kto"])
def test_preferences_are_trained_with_their_system_message(
    stage: str, inputs: dict[str, Artifact], ray_session: RaySession, tmp_path: Path
) -> None:
    rows = {**inputs, "train_set": preferences(stage, tmp_path)}
    result = train(recipe_of(stage=stage, max_steps=4), rows, ray_session, tmp_path / "run" / "train")
    assert result.metrics["num_steps"] == 4
    assert result.metrics["loss_first"] == pytest.approx({"dpo": 0.6931, "kto": 0.5}[stage], abs=1e-3)
    assert result.metrics["loss_last"] < result.metrics["loss_first"]
    assert (result.artifacts[0].path / "chat_template.jinja").read_text() == CHAT_TEMPLATE


def test_an_unknown_argument_is_explained_and_not_tried_again(
    inputs: dict[str, Artifact], ray_session: RaySession, tmp_path: Path
) -> None:
    with pytest.raises(RunnerError, match=r"TRL knows no train\.args\.warmup_step \(did you mean warmup_steps"):
        train(recipe_of(warmup_step=1), inputs, ray_session, tmp_path / "train")


def test_a_loss_that_is_not_a_number_ends_the_training(
    inputs: dict[str, Artifact], ray_session: RaySession, tmp_path: Path
) -> None:
    recipe = recipe_of(max_steps=30, max_grad_norm=0, optim="sgd", lr_scheduler_type="constant")
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"learning_rate": 1e30})})
    with pytest.raises(RunnerError, match="training has diverged"):
        train(recipe, inputs, ray_session, tmp_path / "train")


def test_the_quickstart_by_one_changed_line_is_trained_published_predicted_and_scored(tmp_path: Path) -> None:
    done = run_recipe(
        "train.trainer=accelerate",
        "train.max_samples=64",
        "dataset.max_rows.test=8",
        "pipeline=[ingest,train,publish,infer,evaluate]",
        "infer.engine=own",
        root=tmp_path / "runs",
    )
    assert done.code == 0, done.shown
    assert [stage["status"] for stage in done.summary["stages"]] == ["done"] * 5
    assert done.summary["scores"]["tuned"]["n"] == 8
    published = json.loads((Path(done.artifact("adapter")["uri"]) / "adapter_config.json").read_text())
    assert (published["peft_type"], published["r"]) == ("LORA", 8)
    assert done.summary["scores"]["tuned"]["attribute_f1"] > done.summary["scores"]["base"]["attribute_f1"]
