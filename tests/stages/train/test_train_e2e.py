"""Training on real Ray Train and LLaMA-Factory: a tiny random model, a few steps, on this machine's CPUs."""

from __future__ import annotations

import json
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from runner.cluster.session import RaySession
from runner.errors import RunnerError
from runner.pipeline.context import RunContext
from runner.pipeline.stage import StageResult
from runner.storage.artifact import Artifact, scan_folder
from runner.storage.digest import digest_json
from stages.data.example import Example, Message, write_examples
from stages.sections.recipe import Recipe
from stages.train.stage import Train
from tests.tiny_model import CHAT_TEMPLATE, write_tiny_model

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.filterwarnings("default")]

NUM_ROWS = 16


class Watch:
    """Sees the progress events of a session; `on_step` is called with the number of steps done."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.on_step: Any = None

    def __call__(self, stage: str, event: dict[str, Any]) -> None:
        self.events.append(event)
        if self.on_step:
            self.on_step(event["done"])


def example(number: int) -> Example:
    """A question and an answer whose length is the number."""
    asked: Message = {"role": "user", "content": f"name number {number}"}
    return Example(f"train-{number:06d}", [asked, {"role": "assistant", "content": "x" * number}])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("inputs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_tiny_model(folder / "model")
    rows = folder / "train_set"
    rows.mkdir()
    write_examples(rows / "train.jsonl", map(example, range(1, NUM_ROWS + 1)))
    return {"model": scan_folder("model", folder / "model"), "train_set": scan_folder("train_set", rows)}


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


@pytest.fixture(scope="module")
def ray_session(watch: Watch) -> Iterator[RaySession]:
    session = RaySession(recipe_of().cluster, watch)
    yield session
    session.close()


def recipe_of(num_workers: int = 1, **args: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "model": {"source": "org/tiny"},
            "dataset": {"source": "data", "prompt": {"user": "{instruction}", "assistant": "{output}"}},
            "serve": {"model_id": "base"},
            "cluster": {"num_cpus": 2},
            "train": {
                "learning_rate": 1e-3,
                "args": {"per_device_train_batch_size": 2, "disable_gradient_checkpointing": True, **args},
            },
            "resources": {"train": {"num_workers": num_workers}},
        }
    )


def train(
    recipe: Recipe, inputs: dict[str, Artifact], session: RaySession, folder: Path, lines: list[str] | None = None
) -> StageResult:
    folder.mkdir(parents=True, exist_ok=True)
    fingerprint = digest_json(recipe.model_dump(mode="json"))
    say = (lines if lines is not None else []).append
    return Train().run(RunContext(recipe, "train", "r1", folder.parent, folder, fingerprint, inputs, session, say=say))


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
    recipe = recipe_of(max_steps=1200, save_steps=100)  # about 14 s: time to be seen and stopped
    whole = train(recipe, inputs, ray_session, tmp_path / "whole")
    killed: list[int] = []

    def kill(done: float) -> None:
        # By the third checkpoint the first is registered: a worker waits to report while the last but one is not.
        if done >= 310 and not killed:
            killed.extend(training_workers())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    watch.on_step = kill
    try:
        resumed = train(recipe, inputs, ray_session, tmp_path / "resumed")
    finally:
        watch.on_step = None
    assert killed
    assert resumed.metrics["resumed_at_step"] >= 100
    assert resumed.artifacts[0].sha256 == whole.artifacts[0].sha256
    assert resumed.metrics["train_loss"] == pytest.approx(whole.metrics["train_loss"])
    assert num_lines(resumed.artifacts[1]) == num_lines(whole.artifacts[1])


def test_stopped_training_saves_and_resumes_from_the_newest_whole_checkpoint(
    inputs: dict[str, Artifact], watch: Watch, ray_session: RaySession, tmp_path: Path
) -> None:
    recipe = recipe_of(max_steps=1200, save_steps=100)  # about 14 s: time to be seen and stopped
    whole = train(recipe, inputs, ray_session, tmp_path / "whole")
    folder = tmp_path / "resumed"
    watch.on_step = lambda done: ray_session.ask_to_stop() if done >= 210 else None
    try:
        with pytest.raises(AssertionError, match="without its results"):  # an interrupted run does not get so far
            train(recipe, inputs, ray_session, folder)
    finally:
        watch.on_step = None
        ray_session.ask_to_stop(stop=False)
    before, newest = sorted(path for path in (folder / "checkpoints").glob("*/checkpoint_*") if path.is_dir())
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


def steps_of(checkpoint: Path) -> int:
    return int(json.loads((checkpoint / "trainer_state.json").read_text())["global_step"])


def training_workers() -> list[int]:
    """Process ids of this test's Ray Train workers."""
    import psutil

    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended since
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process.pid)
    return found


def num_lines(log: Artifact) -> int:
    return len((log.path / "trainer_log.jsonl").read_text().splitlines())


@pytest.mark.parametrize("stage", ["dpo", "kto"])
def test_preferences_are_trained_with_their_system_message_and_leave_the_chat_template(
    stage: str, inputs: dict[str, Artifact], ray_session: RaySession, tmp_path: Path
) -> None:
    def row(number: int) -> Example:
        asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"name number {number}"}]
        good, bad = {"role": "assistant", "content": "x"}, {"role": "assistant", "content": "y" * number}
        if stage == "dpo":
            return Example(f"train-{number:06d}", asked, chosen=[good], rejected=[bad])
        return Example(f"train-{number:06d}", [*asked, bad if number % 2 else good], label=number % 2 == 0)

    (tmp_path / "train_set").mkdir()
    write_examples(tmp_path / "train_set" / "train.jsonl", map(row, range(1, 9)))
    recipe = recipe_of(max_steps=4, save_steps=4)
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"stage": stage})})
    rows = {**inputs, "train_set": scan_folder("train_set", tmp_path / "train_set")}
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
