"""Trainings that every trainer is put through: a tiny random model, a few steps, kills and stops at a step."""

from __future__ import annotations

import json
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from runner.cluster.session import RaySession
from runner.pipeline.context import RunContext
from runner.pipeline.stage import StageResult
from runner.storage.artifact import Artifact, scan_folder
from runner.storage.digest import digest_json
from stages.data.example import Example, Message, write_examples
from stages.sections.recipe import Recipe
from stages.train.stage import Train
from tests.tiny_model import write_tiny_model

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


def saved_by_time(recipe: Recipe, every_s: float) -> Recipe:
    """The recipe with checkpoints by time; those by steps come after its end."""
    checkpoints = recipe.train.checkpoints.model_copy(update={"every_s": every_s})
    args = {**recipe.train.args, "save_steps": 1_000_000}
    return recipe.model_copy(
        update={"train": recipe.train.model_copy(update={"checkpoints": checkpoints, "args": args})}
    )


def train(
    recipe: Recipe, inputs: dict[str, Artifact], session: RaySession, folder: Path, lines: list[str] | None = None
) -> StageResult:
    folder.mkdir(parents=True, exist_ok=True)
    fingerprint = digest_json(recipe.model_dump(mode="json"))
    say = (lines if lines is not None else []).append
    return Train().run(RunContext(recipe, "train", "r1", folder.parent, folder, fingerprint, inputs, session, say=say))


def check_a_killed_worker_resumes(
    recipe: Recipe, inputs: dict[str, Artifact], session: RaySession, watch: Watch, folder: Path, *, kill_at: int
) -> tuple[StageResult, StageResult]:
    """Kill the workers at a step: the training resumes and makes the adapter of a whole one. Gives (whole, resumed)."""
    whole = train(recipe, inputs, session, folder / "whole")
    killed: list[int] = []

    def kill(done: float) -> None:
        if done >= kill_at and not killed:
            killed.extend(training_workers())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    with seen_by(watch, kill):
        resumed = train(recipe, inputs, session, folder / "resumed")
    assert killed
    assert resumed.metrics["resumed_at_step"] >= min(recipe.train.args["save_steps"], kill_at // 2)
    assert resumed.artifacts[0].sha256 == whole.artifacts[0].sha256
    assert num_lines(resumed.artifacts[1]) == num_lines(whole.artifacts[1])
    return whole, resumed


def stop_at(
    recipe: Recipe, inputs: dict[str, Artifact], session: RaySession, watch: Watch, folder: Path, *, step: int
) -> list[Path]:
    """Stop the training at a step, as an interrupted run does. Gives its checkpoints, the newest last."""
    with seen_by(watch, lambda done: session.ask_to_stop() if done >= step else None):
        try:
            with pytest.raises(AssertionError, match="without its results"):  # an interrupted run does not get so far
                train(recipe, inputs, session, folder)
        finally:
            session.ask_to_stop(stop=False)
    return sorted(path for path in (folder / "checkpoints").glob("*/checkpoint_*") if path.is_dir())


@contextmanager
def seen_by(watch: Watch, on_step: Any) -> Iterator[None]:
    watch.on_step = on_step
    try:
        yield
    finally:
        watch.on_step = None


def preferences(stage: str, folder: Path) -> Artifact:
    """Eight rows of pairs (dpo) or of judged answers (kto), each with a system message."""

    def row(number: int) -> Example:
        asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"name number {number}"}]
        good, bad = {"role": "assistant", "content": "x"}, {"role": "assistant", "content": "y" * number}
        if stage == "dpo":
            return Example(f"train-{number:06d}", asked, chosen=[good], rejected=[bad])
        return Example(f"train-{number:06d}", [*asked, bad if number % 2 else good], label=number % 2 == 0)

    (folder / "train_set").mkdir()
    write_examples(folder / "train_set" / "train.jsonl", map(row, range(1, 9)))
    return scan_folder("train_set", folder / "train_set")


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
