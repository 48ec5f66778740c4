"""Training by axolotl, in its own environment: a tiny random model, a few steps, on this machine's CPUs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from runner.cluster.session import RaySession
from runner.errors import RunnerError
from runner.storage.artifact import Artifact, scan_folder
from stages.data.example import Example, write_examples
from stages.sections.recipe import Recipe
from stages.trainers.base import trainer_named
from tests.e2e.conftest import run_recipe
from tests.stages.train import cases
from tests.stages.train.cases import (
    NUM_ROWS,
    Watch,
    check_a_killed_worker_resumes,
    inputs,
    ray_session,
    steps_of,
    stop_at,
    train,
    watch,
)  # fmt: skip
from tests.stages.train.finished import finished_run

# Its environment is not of every checkout: `make env NAME=axolotl`.
pytestmark = [
    pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(1800), pytest.mark.filterwarnings("default"),
]  # fmt: skip
__all__ = ["inputs", "ray_session", "watch"]  # fixtures
RUN = "20260101-120000-abcdef"


def recipe_of(num_workers: int = 1, stage: str = "sft", **args: Any) -> Recipe:
    """The recipe of LLaMA-Factory's tests with another trainer."""
    recipe = cases.recipe_of(num_workers, **args)
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"trainer": "axolotl", "stage": stage})})


def test_the_adapter_is_portable_and_the_log_has_the_curves(
    inputs: dict[str, Artifact], ray_session: RaySession, tmp_path: Path
) -> None:
    recipe = recipe_of(val_size=4, eval_strategy="steps", eval_steps=2)
    weights, log = (result := train(recipe, inputs, ray_session, tmp_path / "train")).artifacts
    names = {entry.path for entry in weights.files}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "chat_template.jinja"} <= names
    assert not [name for name in names if name == "config.json" or name.endswith((".bin", ".pt", ".pth", ".md"))]
    described = json.loads((weights.path / "adapter_config.json").read_text())
    assert (described["base_model_name_or_path"], described["r"], described["lora_alpha"]) == ("org/tiny", 8, 16)
    assert str(tmp_path) not in "".join(path.read_text(errors="ignore") for path in weights.path.glob("*.json"))
    assert weights.meta["rank"] == 8
    figures = result.metrics
    assert (figures["num_steps"], figures["num_samples"], figures["num_workers"]) == (6, NUM_ROWS - 4, 1)
    assert figures["loss_last"] < figures["loss_first"]
    points = trainer_named("axolotl").log_points(log.path)
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


def test_two_workers_train_a_whole_model_together(
    inputs: dict[str, Artifact], ray_session: RaySession, tmp_path: Path
) -> None:
    recipe = recipe_of(num_workers=2, finetuning_type="full")
    result = train(recipe, inputs, ray_session, tmp_path / "train")
    assert (result.metrics["num_steps"], result.metrics["num_workers"]) == (NUM_ROWS // 4, 2)
    weights = result.artifacts[0]
    assert {"model.safetensors", "config.json"} <= {entry.path for entry in weights.files}
    described = [json.loads((path / "config.json").read_text()) for path in (weights.path, inputs["model"].path)]
    assert described[0]["max_position_embeddings"] == described[1]["max_position_embeddings"] < 2048


def test_every_row_of_every_epoch_is_trained(
    inputs: dict[str, Artifact], ray_session: RaySession, tmp_path: Path
) -> None:
    recipe = recipe_of(per_device_train_batch_size=3)
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"num_epochs": 2})})
    result = train(recipe, inputs, ray_session, tmp_path / "train")
    assert result.metrics["num_steps"] == 2 * 6  # of 16 rows, the last step of each epoch has one


def test_texts_are_learned_in_blocks(inputs: dict[str, Artifact], ray_session: RaySession, tmp_path: Path) -> None:
    (tmp_path / "train_set").mkdir()
    texts = (Example(f"train-{number:06d}", text="one two three four " * 8) for number in range(8))
    write_examples(tmp_path / "train_set" / "train.jsonl", texts)
    rows = {**inputs, "train_set": scan_folder("train_set", tmp_path / "train_set")}
    recipe = recipe_of(stage="pt", sequence_len=32, per_device_train_batch_size=4)
    figures = train(recipe, rows, ray_session, tmp_path / "run" / "train").metrics
    assert figures["num_samples"] == figures["learned"]["train"]["samples"] > 8
    assert figures["loss_last"] < figures["loss_first"]


def test_a_killed_worker_resumes_and_makes_the_same_adapter(
    inputs: dict[str, Artifact], ray_session: RaySession, watch: Watch, tmp_path: Path
) -> None:
    recipe = recipe_of(max_steps=120, save_steps=20)
    check_a_killed_worker_resumes(recipe, inputs, ray_session, watch, tmp_path, kill_at=65)


def test_a_stopped_training_saves_a_checkpoint_that_a_new_attempt_resumes_from(
    inputs: dict[str, Artifact], watch: Watch, ray_session: RaySession, tmp_path: Path
) -> None:
    recipe, folder = recipe_of(max_steps=200, save_steps=1000), tmp_path / "train"
    (saved,) = stop_at(recipe, inputs, ray_session, watch, folder, step=20)
    stopped_at = steps_of(saved)
    assert 20 <= stopped_at < 200
    assert train(recipe, inputs, ray_session, folder).metrics["resumed_at_step"] == stopped_at


def test_a_configuration_that_axolotl_refuses_is_not_tried_again(
    inputs: dict[str, Artifact], ray_session: RaySession, tmp_path: Path
) -> None:
    with pytest.raises(RunnerError, match=r"axolotl refuses train\.args\.lora_modules_to_save"):
        train(recipe_of(lora_modules_to_save=[["x"]]), inputs, ray_session, tmp_path / "train")


def test_a_loss_that_is_not_a_number_ends_the_training(
    inputs: dict[str, Artifact], ray_session: RaySession, tmp_path: Path
) -> None:
    recipe = recipe_of(max_steps=30, max_grad_norm=0, optim="sgd", lr_scheduler_type="constant")
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"learning_rate": 1e30})})
    with pytest.raises(RunnerError, match="training has diverged"):
        train(recipe, inputs, ray_session, tmp_path / "train")


def test_the_quickstart_by_one_changed_line_is_trained_published_predicted_and_scored(tmp_path: Path) -> None:
    done = run_recipe(
        "train.trainer=axolotl",
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


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_it_begins_with_what_another_run_has_trained(
    kind: str, inputs: dict[str, Artifact], ray_session: RaySession, tmp_path: Path
) -> None:
    name = {"lora": "adapter_model.safetensors", "full": "model.safetensors"}[kind]
    first = changed(cases.recipe_of(max_steps=16, finetuning_type=kind), learning_rate=2e-2)
    before = train(first, inputs, ray_session, tmp_path / "tiny" / RUN / "train")
    finished_run(tmp_path / "tiny" / RUN, first, [*before.artifacts, inputs["model"]])
    second = changed(recipe_of(max_steps=1, finetuning_type=kind), learning_rate=1e-12, start_from=RUN)
    storage = second.storage.model_copy(update={"root": str(tmp_path)})
    after = train(second.model_copy(update={"storage": storage}), inputs, ray_session, tmp_path / "second" / "train")
    old, new = (load_file(result.artifacts[0].path / name) for result in (before, after))
    assert old.keys() == new.keys()
    assert max(float(abs(old[name] - new[name]).max()) for name in old) < 1e-8
    assert str(tmp_path) not in (after.artifacts[1].path / "args.json").read_text()


def changed(recipe: Recipe, **keys: Any) -> Recipe:
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=keys)})
