"""The reporter between the trainer and Ray: progress, checkpoints, figures; and what a new attempt resumes from."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.errors import RunnerError
from stages.trainers.llamafactory.loop import _can_resume, resumed
from stages.trainers.worker import reporter as reporting
from stages.trainers.worker.folder import work_folder
from stages.trainers.worker.loop import fetched, require_a_step, weights_only
from stages.trainers.worker.reporter import Reporter
from stages.trainers.worker.size import for_workers

ARGS = SimpleNamespace(train_batch_size=8, gradient_accumulation_steps=2)


class Handle:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def update(self, done: float, total: float | None, unit: str, **figures: Any) -> None:
        self.events.append({"done": done, "total": total, "unit": unit, **figures})


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def state(step: int, history: list[dict[str, Any]] | None = None) -> Any:
    return SimpleNamespace(global_step=step, max_steps=10, log_history=history or [])


def trained(reporter: Reporter, clock: Clock, first: int = 0, history: list[dict[str, Any]] | None = None) -> Reporter:
    """Steps `first`+1 to 10, two seconds each, loss 11 - step."""
    reporter.begin(ARGS, state(first, history), num_samples=320)
    for step in range(first + 1, 11):
        clock.now += 2.0
        reporter.step(state(step), log_follows=True)
        reporter.log(state(step), {"loss": 11.0 - step})
    return reporter


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    made: list[Any] = []
    monkeypatch.setattr(reporting, "report", lambda metrics, folder, **part: made.append((metrics, folder, part)))
    return made


def test_tells_step_loss_and_rate() -> None:
    handle, clock = Handle(), Clock()
    trained(Reporter(0, 2, handle, now=clock), clock)
    assert handle.events[0] == {
        "done": 0, "total": 10, "unit": "step", "loss": None, "rows_per_s": None,
    }  # fmt: skip
    fifth = handle.events[5]
    assert (fifth["done"], fifth["loss"], fifth["rows_per_s"]) == (5, 6.0, 16.0)


def test_only_the_first_worker_tells() -> None:
    handle, clock = Handle(), Clock()
    trained(Reporter(1, 2, handle, now=clock), clock)
    assert handle.events == []


def test_summary_weighs_losses_by_steps_and_rates_all_workers() -> None:
    clock = Clock()
    before = time.time()
    summary = trained(Reporter(0, 2, Handle(), now=clock), clock).summary()
    assert before <= summary.pop("first_step_at") <= time.time()
    assert summary == {
        "num_steps": 10, "num_samples": 320, "num_workers": 2, "train_loss": 5.5, "loss_first": 10.0, "loss_last": 1.0,
        "eval_loss_last": None, "eval_loss_best": None,
        "samples_per_s": 16.0, "train_runtime_s": 20.0, "resumed_at_step": None,
        "num_checkpoints": 0, "checkpoints_s": 0.0,
    }  # fmt: skip


def test_resumed_training_counts_all_losses_but_only_its_own_time() -> None:
    clock = Clock()
    history = [{"step": step, "loss": 11.0 - step} for step in range(1, 7)] + [{"step": 6, "eval_loss": 3.0}]
    summary = trained(Reporter(0, 2, Handle(), now=clock), clock, first=6, history=history).summary()
    assert (summary["train_loss"], summary["loss_first"]) == (5.5, 10.0)
    assert (summary["eval_loss_last"], summary["eval_loss_best"]) == (3.0, 3.0)
    assert (summary["train_runtime_s"], summary["samples_per_s"], summary["resumed_at_step"]) == (8.0, 16.0, 6)


def test_checkpoint_is_reported_at_the_next_event_without_what_resuming_does_not_read(
    tmp_path: Path, reports: list[Any]
) -> None:
    folder = tmp_path / "checkpoint-4"
    folder.mkdir()
    for name in ("adapter_model.safetensors", "optimizer.pt", "training_args.bin", "tokenizer.json", "README.md"):
        (folder / name).touch()
    (tmp_path / "trainer_log.jsonl").write_text("{}\n")
    reporter = Reporter(0, 1, Handle(), num_steps=4)
    reporter.saved(folder, tmp_path)
    assert reports == []
    reporter.flush()
    reporter.flush()
    assert reports == [({"step": 4}, folder, {"rank": 0, "num_parts": 1, "wait": False})]
    assert {path.name for path in folder.iterdir()} == {
        "adapter_model.safetensors", "optimizer.pt", "trainer_log.jsonl",
    }  # fmt: skip


def test_worker_without_a_part_of_the_checkpoint_reports_all_the_same(tmp_path: Path, reports: list[Any]) -> None:
    reporter = Reporter(1, 2, Handle(), num_steps=4)
    reporter.saved(tmp_path / "checkpoint-4", tmp_path)
    reporter.flush(wait=True)
    assert reports == [({"step": 4}, tmp_path / "checkpoint-4", {"rank": 1, "num_parts": 2, "wait": True})]
    assert list((tmp_path / "checkpoint-4").iterdir()) == []


def test_the_first_worker_asks_now_and_then_whether_to_stop() -> None:
    clock, asked = Clock(), []
    handle = SimpleNamespace(is_stopping=lambda: asked.append(clock.now) or clock.now > 3)
    reporter = Reporter(0, 1, handle, now=clock)
    answers = []
    for step in range(20):
        clock.now = step * 0.2
        answers.append(reporter.look("cpu").is_stopping)
    assert len(asked) == 7
    assert answers.index(True) * 0.2 > 3


def test_every_worker_stops_when_the_first_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "first_ones", lambda flags, device: (True, False, False))
    reporter = Reporter(1, 2, SimpleNamespace())
    assert reporter.look("cpu") == (True, False, False)
    assert reporter.is_stopping


def saves(reporter: Reporter, clock: Clock, folder: Path, *, step_s: float, save_s: float, steps: int) -> list[float]:
    """When checkpoints were saved because they were due, by a training with such steps and such checkpoints."""
    reporter.begin(ARGS, state(0), num_samples=320)
    found = []
    for step in range(1, steps + 1):
        reporter.flush()
        clock.now += step_s
        reporter.step(state(step), log_follows=True)
        if reporter.look("cpu").is_due:
            found.append(clock.now)
            clock.now += save_s
            reporter.saved(folder / f"checkpoint-{step}", folder)
    return found


def test_a_checkpoint_is_due_by_time_and_counts_from_the_one_before(tmp_path: Path, reports: list[Any]) -> None:
    clock, handle = Clock(), SimpleNamespace(is_stopping=lambda: False, update=lambda *args, **figures: None)
    reporter = Reporter(0, 1, handle, now=clock, save_every_s=300.0)
    assert saves(reporter, clock, tmp_path, step_s=100.0, save_s=2.0, steps=10) == [300.0, 602.0, 904.0]
    assert (reporter.summary()["num_checkpoints"], reporter.summary()["checkpoints_s"]) == (3, 6.0)


def test_checkpoints_that_take_long_are_saved_more_seldom(tmp_path: Path, reports: list[Any]) -> None:
    clock, handle = Clock(), SimpleNamespace(is_stopping=lambda: False, update=lambda *args, **figures: None)
    reporter = Reporter(0, 1, handle, now=clock, save_every_s=300.0)
    assert saves(reporter, clock, tmp_path, step_s=100.0, save_s=60.0, steps=30) == [300.0, 1560.0, 2820.0]


def test_no_checkpoint_is_due_where_none_is_wanted_by_time(tmp_path: Path, reports: list[Any]) -> None:
    clock, handle = Clock(), SimpleNamespace(is_stopping=lambda: False, update=lambda *args, **figures: None)
    assert saves(Reporter(0, 1, handle, now=clock), clock, tmp_path, step_s=500.0, save_s=1.0, steps=5) == []


def test_only_the_first_worker_says_that_a_checkpoint_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, handle = Clock(), SimpleNamespace(is_stopping=lambda: False)
    first, second = (Reporter(rank, 2, handle, now=clock, save_every_s=10.0) for rank in (0, 1))
    shared: list[Any] = []
    monkeypatch.setattr(reporting, "first_ones", lambda flags, device: shared.append(flags) or shared[0])
    clock.now = 11.0
    assert [first.look("cpu").is_due, second.look("cpu").is_due] == [True, True]
    assert [flags[2] for flags in shared] == [True, False]


def test_a_node_that_is_to_be_taken_away_is_told_once_and_asked_for_by_every_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, leaving, asked = Clock(), [], []
    handle = SimpleNamespace(is_stopping=lambda: False)

    def notice(rank: int) -> Any:
        asked.append((rank, clock.now))
        return "node 2" if clock.now > 5 else None

    first = Reporter(0, 2, handle, now=clock, notice=lambda: notice(0))
    second = Reporter(1, 2, handle, now=clock, notice=lambda: notice(1))
    shared: list[Any] = []
    monkeypatch.setattr(reporting, "first_ones", lambda flags, device: shared.append(flags) or shared[0])
    for step in range(100):
        clock.now = step * 0.1
        shared.clear()
        leaving.append((first.look("cpu").is_leaving, second.look("cpu").is_leaving))
    assert leaving.count((True, True)) == 1
    assert leaving.count((False, False)) == 99
    assert [rank for rank, _ in asked] == [0, 1] * (len(asked) // 2)
    assert 2 < len(asked) < 10


def test_progress_says_that_workers_are_missing() -> None:
    handle, clock = Handle(), Clock()
    trained(Reporter(0, 1, handle, now=clock, most_workers=2), clock)
    assert handle.events[-1]["workers"] == "1 of 2"


@pytest.mark.parametrize("within", [(), ("config",)])
def test_fewer_workers_gather_more_batches_each(within: tuple[str, ...]) -> None:
    def of(gather: int) -> dict[str, Any]:
        inner = {"gradient_accumulation_steps": gather, "seed": 1}
        return {"config": inner} if within else inner

    assert for_workers(of(3), within, most=4, now=4) == of(3)
    assert for_workers(of(3), within, most=4, now=2) == of(6)
    assert for_workers(of(3), within, most=4, now=3) == of(4)
    with pytest.raises(ValueError, match="12 batches of a step for 5 workers"):
        for_workers(of(3), within, most=4, now=5)


def test_reward_model_gets_its_adapter_back_too(tmp_path: Path) -> None:
    args = {"stage": "rm", "finetuning_type": "lora", "output_dir": "out"}
    assert resumed(args, tmp_path / "resume")["adapter_name_or_path"] == str(tmp_path / "resume")


def test_starts_from_the_beginning_without_a_checkpoint_and_for_ppo(tmp_path: Path) -> None:
    sft = {"stage": "sft", "finetuning_type": "lora", "output_dir": "out"}
    assert resumed(sft, fetched(None, tmp_path, sft)) == sft
    assert _can_resume(sft)
    assert not _can_resume({**sft, "stage": "ppo"})


def test_a_training_without_a_step_is_not_taken_for_one() -> None:
    require_a_step(1)
    with pytest.raises(RunnerError, match="has made no step"):
        require_a_step(0)


def test_checkpoints_without_the_optimizer_are_not_resumed_from() -> None:
    assert weights_only({"save_only_model": True})
    assert weights_only({"config": {"save_only_model": True}})
    assert not weights_only({"config": {}})


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ray Train's working directory of a run."""
    monkeypatch.setenv("HF_DATASETS_CACHE", "")
    folder = tmp_path / "session_1" / "artifacts" / "run"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def test_work_folder_is_fresh_and_goes_again(session: Path) -> None:
    with work_folder("1", 0) as work:
        assert Path.cwd() == work
    assert Path.cwd() == session
    assert not work.exists()
    work.mkdir()  # as a killed worker leaves it
    (work / "incomplete").touch()
    with work_folder("1", 0) as again:
        assert list(again.iterdir()) == []


def test_the_work_folder_of_the_next_run_has_the_same_name(session: Path, tmp_path: Path) -> None:
    """By which CUDA finds what cuDNN has compiled."""
    with work_folder("1", 0) as one:
        pass
    later = tmp_path / "session_2" / "artifacts" / "run"
    later.mkdir(parents=True)
    os.chdir(later)
    with work_folder("2", 0) as two:
        assert two == one
        assert os.environ["HF_DATASETS_CACHE"] == str(later / "job-2" / "datasets-0")


def test_two_workers_on_a_node_have_folders_of_their_own(session: Path) -> None:
    with work_folder("1", 0) as one:
        (one / "output").touch()
        os.chdir(session)
        with work_folder("2", 0) as two:
            assert two != one
        assert (one / "output").exists()


def test_a_folder_of_these_names_that_is_another_user_s_is_not_used(
    session: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    with work_folder("1", 0) as work:
        assert work.parent == session


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_a_number_ends_the_training(loss: float) -> None:
    reporter = Reporter(0, 1, Handle())
    with pytest.raises(RunnerError, match=f"the loss of step 7 is {loss}: training has diverged"):
        reporter.log(state(7), {"loss": loss})
