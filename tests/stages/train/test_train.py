"""What Ray Train is given, how its errors are told, and how a finished training becomes artifacts. No Ray here."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.cluster.session import RaySession
from runner.pipeline.context import RunContext
from runner.recipe.schema import StageResources
from stages.sections.recipe import Recipe
from stages.train import stage as train
from stages.train.stage import (
    Train,
    in_thread,
    keep,
    note,
    run_config,
    scaling_config,
    stop,
    storage_path,
    worker_settings,
)
from stages.trainers.checkpoints import seal

BASE: dict[str, Any] = {
    "name": "viggo",
    "model": {"source": "org/model", "template": "qwen"},
    "dataset": {"source": "s3://viggo-ds", "prompt": {"user": "{input}", "assistant": "{output}"}},
    "serve": {"model_id": "base"},
}
FIGURES = {
    "num_steps": 8, "loss_first": 2.955, "loss_last": 0.0625, "samples_per_s": 1.44, "resumed_at_step": None,
}  # fmt: skip


def recipe_of(**sections: Any) -> Recipe:
    return Recipe.model_validate({**BASE, **sections})


def test_scaling_config_asks_for_gpus_custom_resources_and_placement() -> None:
    resources = StageResources(
        num_workers=4, cpus_per_worker=4.0, gpus_per_worker=1.0, accelerator_type="A10G", custom={"fast_disk": 0.5},
        placement_strategy="SPREAD",
    )  # fmt: skip
    assert scaling_config(resources, nodes_may_go=True) == {
        "num_workers": 4,
        "use_gpu": True,
        "resources_per_worker": {"CPU": 4.0, "GPU": 1.0, "fast_disk": 0.5},
        "accelerator_type": "A10G",
        "placement_strategy": "SPREAD",
    }


def test_scaling_config_of_cpu_workers_names_no_gpu() -> None:
    assert scaling_config(StageResources(cpus_per_worker=2.0), nodes_may_go=True) == {
        "num_workers": 1,
        "use_gpu": False,
        "resources_per_worker": {"CPU": 2.0},
        "placement_strategy": "PACK",
    }


def test_a_range_of_workers_goes_to_ray_train_where_nodes_come_and_go() -> None:
    resources = StageResources(num_workers={"min": 1, "max": 4, "check_every_s": 5})
    found = scaling_config(resources, nodes_may_go=True)
    assert (found["num_workers"], found["elastic_resize_monitor_interval_s"]) == ((1, 4), 5)
    found = scaling_config(resources, nodes_may_go=False)
    assert (found["num_workers"], "elastic_resize_monitor_interval_s" in found) == (4, False)


def test_run_name_follows_the_fingerprint(tmp_path: Path) -> None:
    names = [run_config(recipe_of(), tmp_path, "r1", digit * 64)["name"] for digit in "aab"]
    assert names == ["viggo-" + "a" * 16, "viggo-" + "a" * 16, "viggo-" + "b" * 16]


def test_run_config_carries_failures_checkpoints_and_environment(tmp_path: Path) -> None:
    recipe = recipe_of(
        train={"max_failures": 5, "checkpoints": {"keep": 3}},
        resources={"train": {"runtime_env": {"pip": ["x"], "env_vars": {"OMP_NUM_THREADS": "9"}}}},
    )
    config = run_config(recipe, tmp_path, "r1", "f" * 64)
    assert config["failure_config"] == {"max_failures": 5}
    assert config["checkpoint_config"] == {"num_to_keep": 3}
    assert config["worker_runtime_env"]["pip"] == ["x"]
    assert config["worker_runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "9"
    assert config["worker_runtime_env"]["env_vars"]["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize(
    ("path", "endpoint", "expected"),
    [
        ("/shared/ckpt", None, "/shared/ckpt/r1"),
        ("s3://bucket/ckpt/", None, "s3://bucket/ckpt/r1"),
        ("s3://b/c", "http://127.0.0.1:5000", "s3://b/c/r1?endpoint_override=127.0.0.1:5000&scheme=http"),
        ("s3://b/c", "https://s3.example.com/", "s3://b/c/r1?endpoint_override=s3.example.com&scheme=https"),
    ],
)
def test_checkpoints_go_below_the_storage_path_of_the_recipe(path: str, endpoint: str | None, expected: str) -> None:
    recipe = recipe_of(train={"storage_path": path}, storage={"endpoint_url": endpoint})
    assert storage_path(recipe, Path("stage"), "r1") == expected


def test_checkpoints_go_into_the_stage_folder_by_default(tmp_path: Path) -> None:
    assert storage_path(recipe_of(), tmp_path, "r1") == str(tmp_path / "checkpoints")


class FakeCheckpoint:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def to_directory(self, path: str) -> str:
        shutil.copytree(self.folder, path)
        return path


def test_final_checkpoint_becomes_the_two_artifacts_and_replaces_leftovers(tmp_path: Path) -> None:
    for name in ("adapter/adapter_model.safetensors", "log/trainer_log.jsonl"):
        (tmp_path / "ray" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "ray" / name).write_text(name)
    seal(tmp_path / "ray", 0, 1, {}, "tiny-0123")
    stage_dir = tmp_path / "train"
    (stage_dir / "trained_weights").mkdir(parents=True)
    (stage_dir / "trained_weights" / "incomplete.bin").write_text("left by an attempt that died")
    result = keep(FakeCheckpoint(tmp_path / "ray"), stage_dir, "org/model", FIGURES, "tiny-0123")
    assert [artifact.name for artifact in result.artifacts] == ["trained_weights", "training_log"]
    assert [entry.path for entry in result.artifacts[0].files] == ["adapter_model.safetensors"]
    assert result.artifacts[0].meta == {"kind": "model", "base_model": "org/model"}
    assert sorted(path.name for path in stage_dir.iterdir()) == ["trained_weights", "training_log"]


def test_note_tells_steps_losses_rate_and_resumption() -> None:
    assert note(FIGURES) == "8 steps, loss 2.955 -> 0.062, 1.4 rows/s"
    assert note({**FIGURES, "resumed_at_step": 4}).endswith(", resumed at step 4")


class Interruption(BaseException):
    """As the engine's, of which this module must not know."""


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float | None]]:
    """Interrupts a training that has told of `done` steps; returns how long it was then waited for, each time."""

    def interrupt(done: int | None, on_stop_s: float = 60.0) -> list[float | None]:
        waited: list[float | None] = []

        class Ended(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                waited.append(timeout)
                if len(waited) == 1:
                    raise Interruption
                return True

        session = SimpleNamespace(
            latest=lambda stage: None if done is None else {"done": done}, ask_to_stop=lambda: waited.append(0.0)
        )
        recipe = recipe_of(train={"checkpoints": {"on_stop_s": on_stop_s}})
        ctx = SimpleNamespace(ray=session, stage="train", recipe=recipe, say=lambda text: None)
        with monkeypatch.context() as patch:
            patch.setattr(train, "threading", SimpleNamespace(Event=Ended, Thread=threading.Thread))
            with pytest.raises(Interruption):
                in_thread(lambda: None, partial(stop, ctx))  # type: ignore[arg-type]
        return waited

    return interrupt


def test_an_interrupted_training_is_asked_to_save_and_waited_for(
    interrupted: Callable[..., list[float | None]],
) -> None:
    assert interrupted(done=12, on_stop_s=45.0) == [None, 0.0, 45.0]


@pytest.mark.parametrize("done", [None, 0])
def test_a_training_without_a_step_has_nothing_to_save(
    done: int | None, interrupted: Callable[..., list[float | None]]
) -> None:
    assert interrupted(done) == [None]


def test_a_signal_does_not_make_a_training_count_as_ended() -> None:
    """As `Thread.join` does in Python 3.11, so that nothing was saved."""
    seen: list[tuple[bool, bool]] = []

    def interrupt(*_: Any) -> None:
        raise Interruption

    usual = signal.signal(signal.SIGUSR1, interrupt)
    try:
        threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGUSR1)).start()
        with pytest.raises(Interruption):
            in_thread(lambda: time.sleep(1.5), lambda ended: seen.append((ended.is_set(), ended.wait(20))))
    finally:
        signal.signal(signal.SIGUSR1, usual)
    assert seen == [(False, True)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")
@pytest.mark.parametrize("own_cluster", [True, False])
def test_ray_train_starts_no_actor_that_has_nothing_to_do(
    own_cluster: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    given: dict[str, Any] = {}
    monkeypatch.setattr(DataParallelTrainer, "_initialize_and_run_controller", lambda self, **each: given.update(each))
    trainer = train._trainer_class(own_cluster=own_cluster)(
        print, scaling_config=ScalingConfig(num_workers=2), run_config=RunConfig(storage_path=str(tmp_path))
    )
    everything = {type(each).__name__ for each in DataParallelTrainer._create_default_callbacks(trainer)}
    trainer._initialize_and_run_controller(scaling_policy="Ray's")
    kept = {type(each).__name__ for each in trainer._create_default_callbacks()}
    dropped = {"DatasetsCallback", *(["PlacementGroupCleanerCallback"] if own_cluster else [])}
    assert everything - kept == dropped
    assert dropped <= everything
    policy = given["scaling_policy"]
    if own_cluster:
        policy.after_controller_start(None)
        decision = policy.make_decision_for_non_running_worker_group()
        policy.before_controller_abort()
        assert decision.num_workers == 2
        assert policy._coordinator_client is None, "an actor was started for an autoscaler"
    else:
        assert policy == "Ray's"


@pytest.mark.parametrize(("cpus", "begins"), [(2, False), (4, True)])
def test_the_trainers_libraries_are_imported_during_ingest_where_cpus_are_idle(
    cpus: int, begins: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    session, asked = RaySession(recipe_of().cluster), []
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cpus)))
    monkeypatch.setattr(session, "import_ahead", lambda *given: asked.append(given) or {})
    ctx = RunContext(recipe_of(), "train", "r", tmp_path, tmp_path, "f", {}, session)
    assert bool(Train().warm_up(ctx, "ingest")) is bool(asked) is begins
    if begins:
        environment, imports, given = asked[0]
        assert (environment, imports[0]) == ("llamafactory", "transformers.trainer")
        assert given == worker_settings(recipe_of())
