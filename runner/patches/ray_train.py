"""Ray Train 2.60 without actors that a run does not use, its list of checkpoints, and the cause of its errors."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any


def without_actors(trainer: Any, callbacks: Collection[str], *, fixed_size: bool) -> Any:
    """The trainer class without what starts an actor.

    callbacks: class names of the default callbacks to leave out. fixed_size: do not tell an autoscaler what the
    training needs.
    """

    class Lean(trainer):  # type: ignore[misc]
        def _create_default_callbacks(self) -> list[Any]:
            return [item for item in super()._create_default_callbacks() if type(item).__name__ not in callbacks]

        def _initialize_and_run_controller(self, **arguments: Any) -> Any:
            if fixed_size:
                arguments["scaling_policy"] = _fixed_size(self.scaling_config)
            return super()._initialize_and_run_controller(**arguments)

    return Lean


def _fixed_size(scaling_config: Any) -> Any:
    """Ray Train's policy of as many workers as were asked for, without the actor that it tells so for an autoscaler."""
    from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy

    class FixedSize(FixedScalingPolicy):  # type: ignore[misc]
        def after_controller_start(self, train_run_context: Any) -> None:
            """Ray's own starts the actor here."""

        def _maybe_send_resource_request(self) -> None:
            """Ray's own renews the actor's values here."""

    return FixedSize(scaling_config)


def checkpoint_list(checkpoints: Sequence[tuple[str, dict[str, Any]]]) -> tuple[str, bytes]:
    """Ray Train's own list of these checkpoints: the name of its file in the run's folder, and what is in it.

    checkpoints: folder's name and metrics of each, oldest first.
    """
    from ray.train.v2._internal.constants import CHECKPOINT_MANAGER_SNAPSHOT_FILENAME
    from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import (
        _CheckpointManagerState,
        _TrainingResultState,
    )

    results = [_TrainingResultState(checkpoint_dir_name=name, metrics=metrics) for name, metrics in checkpoints]
    state = _CheckpointManagerState(
        checkpoint_results=results,
        checkpoint_report_indices=list(range(len(results))),
        latest_checkpoint_result=results[-1] if results else None,
        pending_training_results=[],
        pending_validation_specs=[],
        current_report_index=len(results),
        validated_checkpoint_dir_names=[],
        timed_out_validation_checkpoint_dir_names=[],
        failed_validation_checkpoint_dir_names=[],
    )
    return CHECKPOINT_MANAGER_SNAPSHOT_FILENAME, state.model_dump_json().encode()


def inner_error(error: BaseException) -> Any:
    """The exception that a worker raised, where Ray Train has wrapped it; else None."""
    return getattr(error, "_base_exc", None)
