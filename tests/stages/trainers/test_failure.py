"""What a failed training tells the user, and whether it is tried again."""

from __future__ import annotations

from functools import partial

import pytest

from runner.errors import RunnerError
from stages.trainers.failure import explain, explain_in_worker
from stages.trainers.llamafactory.arguments import MEMORY_HINT, explain_arguments

explained = partial(explain, memory_hint=MEMORY_HINT)
explained_in_worker = partial(explain_in_worker, memory_hint=MEMORY_HINT, known=explain_arguments)


class WorkerGroupError(Exception):
    def __init__(self, failures: dict[int, Exception]) -> None:
        super().__init__("Training failed due to worker errors:\n[Rank 0 Error Snippet]:\n...")
        self.worker_failures = failures


class ControllerError(Exception):
    def __init__(self, failure: Exception) -> None:
        super().__init__("Training failed due to controller error")
        self.controller_failure = failure


class TracebackError(Exception):
    def __init__(self, error: Exception) -> None:
        super().__init__("Traceback (most recent call last):\n ...")
        self._base_exc = error


class ActorDiedError(Exception):
    pass


def test_error_names_the_workers_cause_in_one_line() -> None:
    error = explained(WorkerGroupError({0: TracebackError(RuntimeError("ValueError: no rows\nmore"))}))
    assert error.message == "training failed: ValueError: no rows"


def test_error_of_a_worker_counts_more_than_the_echo_of_its_peers() -> None:
    echo = TracebackError(RuntimeError("RuntimeError: [gloo/pair.cc:534] Connection closed by peer [10.0.0.2]"))
    own = TracebackError(RuntimeError("KeyError: 'labels'"))
    assert "KeyError" in explained(WorkerGroupError({0: echo, 1: own})).message


def test_mistake_of_the_user_comes_through_ray_train_as_itself() -> None:
    mistake = RunnerError("LLaMA-Factory knows no train.args.x", "hint")
    assert explained(ControllerError(mistake)) is mistake
    assert explained(WorkerGroupError({1: TracebackError(mistake)})) is mistake


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried ...",
    ],
)
def test_lack_of_memory_names_the_knobs_and_is_not_tried_again(text: str) -> None:
    error = explained_in_worker(RuntimeError(text), begun=True)
    assert isinstance(error, RunnerError)
    for knob in ("per_device_train_batch_size", "cutoff_len", "disable_gradient_checkpointing"):
        assert knob in error.hint


def test_dead_worker_is_reported_as_dead() -> None:
    error = explained(WorkerGroupError({0: ActorDiedError("The actor died unexpectedly before finishing this task.")}))
    assert "died" in error.message
    assert "out of memory" in error.hint


@pytest.mark.parametrize(
    ("error", "begun", "again"),
    [
        (ValueError("Undefined dataset x in dataset_info.json."), False, False),
        (ValueError("something odd at step 5"), True, True),
        (ConnectionError("hub is down"), False, True),
        (FileNotFoundError("no such file"), False, False),
        (RuntimeError("[gloo] Connection closed by peer"), False, True),
    ],
)
def test_only_what_may_pass_is_tried_again(error: Exception, begun: bool, again: bool) -> None:
    assert isinstance(explained_in_worker(error, begun=begun), RunnerError) is not again
