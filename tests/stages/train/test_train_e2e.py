"""Training on real Ray Train and LLaMA-Factory: a tiny random model, a few steps, on this machine's CPUs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from runner.cluster.session import RaySession
from runner.errors import RunnerError
from runner.pipeline.stage import StageResult
from runner.storage.artifact import Artifact
from tests.stages.train.cases import (
    NUM_ROWS,
    Watch,
    check_a_killed_worker_resumes,
    inputs,
    preferences,
    ray_session,
    recipe_of,
    saved_by_time,
    steps_of,
    stop_at,
    train,
    watch,
)  # fmt: skip
from tests.tiny_model import CHAT_TEMPLATE

__all__ = ["inputs", "ray_session", "watch"]  # fixtures
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run") / "train"


@pytest.fixture(scope="module")
def trained(inputs: dict[str, Artifact], ray_session: RaySession, folder: Path) -> StageResult:
    return train(recipe_of(), inputs, ray_session, folder)


def test_hands_over_a_portable_adapter_and_the_log(trained: StageResult, folder: Path) -> None:
    checkpoint, log = trained.artifacts
    assert {entry.path for entry in checkpoint.files} >= {
        "adapter_model.safetensors", "adapter_config.json", "tokenizer.json",
    }  # fmt: skip
    assert not [entry.path for entry in checkpoint.files if entry.path.endswith((".bin", ".pt", ".pth", ".md"))]
    assert json.loads((checkpoint.path / "adapter_config.json").read_text())["base_model_name_or_path"] == "org/tiny"
    assert {entry.path for entry in log.files} >= {
        "trainer_log.jsonl", "all_results.json", "train_results.json", "training_loss.png", "args.json",
    }  # fmt: skip
    figures = trained.metrics
    assert (figures["num_steps"], figures["num_samples"], figures["num_workers"]) == (NUM_ROWS // 2, NUM_ROWS, 1)
    assert figures["loss_last"] < figures["loss_first"]
    assert str(folder.parent) not in "".join(path.read_text(errors="ignore") for path in checkpoint.path.glob("*.json"))


def test_finished_attempt_is_reused_without_training_again(
    trained: StageResult, inputs: dict[str, Artifact], ray_session: RaySession, watch: Watch, folder: Path
) -> None:
    num_events = len(watch.events)
    assert train(recipe_of(), inputs, ray_session, folder) == trained
    assert len(watch.events) == num_events


def test_two_workers_train_together(inputs: dict[str, Artifact], ray_session: RaySession, tmp_path: Path) -> None:
    result = train(recipe_of(num_workers=2), inputs, ray_session, tmp_path / "train")
    assert (result.metrics["num_steps"], result.metrics["num_workers"]) == (NUM_ROWS // 4, 2)


def test_killed_worker_resumes_and_makes_the_same_adapter(
    inputs: dict[str, Artifact], ray_session: RaySession, watch: Watch, tmp_path: Path
) -> None:
    # About 14 s: time to be seen and stopped. By the third checkpoint the first is registered: a worker waits to report
    # while the last but one is not.
    recipe = recipe_of(max_steps=1200, save_steps=100)
    whole, resumed = check_a_killed_worker_resumes(recipe, inputs, ray_session, watch, tmp_path, kill_at=310)
    assert resumed.metrics["train_loss"] == pytest.approx(whole.metrics["train_loss"])


def test_a_killed_training_resumes_from_a_checkpoint_that_was_saved_by_time(
    inputs: dict[str, Artifact], ray_session: RaySession, watch: Watch, tmp_path: Path
) -> None:
    recipe = saved_by_time(recipe_of(max_steps=1200), every_s=1.0)
    whole, resumed = check_a_killed_worker_resumes(recipe, inputs, ray_session, watch, tmp_path, kill_at=600)
    assert 2 <= whole.metrics["num_checkpoints"] <= 30
    assert resumed.metrics["train_loss"] == pytest.approx(whole.metrics["train_loss"])


def test_stopped_training_saves_and_resumes_from_the_newest_whole_checkpoint(
    inputs: dict[str, Artifact], watch: Watch, ray_session: RaySession, tmp_path: Path
) -> None:
    recipe = recipe_of(max_steps=1200, save_steps=100)  # about 14 s: time to be seen and stopped
    whole = train(recipe, inputs, ray_session, tmp_path / "whole")
    folder = tmp_path / "resumed"
    before, newest = stop_at(recipe, inputs, ray_session, watch, folder, step=210)
    whole_until = steps_of(before)  # the folder is not kept to the end
    assert whole_until % 100 == 0
    assert whole_until < steps_of(newest) < 1200
    weights = newest / "adapter_model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    lines: list[str] = []
    resumed = train(recipe, inputs, ray_session, folder, lines)
    assert resumed.metrics["resumed_at_step"] == whole_until
    assert resumed.artifacts[0].sha256 == whole.artifacts[0].sha256
    (reason,) = lines
    assert f"not used: {newest.name}: adapter_model.safetensors has" in reason


@pytest.mark.parametrize("stage", ["dpo", "kto"])
def test_preferences_are_trained_with_their_system_message_and_leave_the_chat_template(
    stage: str, inputs: dict[str, Artifact], ray_session: RaySession, tmp_path: Path
) -> None:
    recipe = recipe_of(max_steps=4, save_steps=4)
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"stage": stage})})
    rows = {**inputs, "train_set": preferences(stage, tmp_path)}
    result = train(recipe, rows, ray_session, tmp_path / "run" / "train")
    assert result.metrics["num_steps"] == 4
    assert result.metrics["learned"]["train"]["rows"] == 8
    assert (result.artifacts[0].path / "chat_template.jinja").read_text() == CHAT_TEMPLATE


def test_unknown_argument_is_explained_and_not_tried_again(
    inputs: dict[str, Artifact], ray_session: RaySession, tmp_path: Path
) -> None:
    with pytest.raises(RunnerError, match=r"train\.args\.warmup_step \(did you mean warmup_steps"):
        train(recipe_of(warmup_step=1), inputs, ray_session, tmp_path / "train")


def test_too_small_a_cluster_is_refused_at_once(
    inputs: dict[str, Artifact], ray_session: RaySession, tmp_path: Path
) -> None:
    with pytest.raises(RunnerError, match=r"resources\.train asks for 3 x \{CPU: 1\}"):
        train(recipe_of(num_workers=3), inputs, ray_session, tmp_path / "train")
