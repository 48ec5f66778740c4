"""The size of a training's worker group on a cluster that no autoscaler looks after. Imported where Ray Train is."""

from __future__ import annotations

from typing import Any

from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy


class FixedSize(FixedScalingPolicy):  # type: ignore[misc]
    """As many workers as the recipe says, and no actor that is told so for an autoscaler (Ray Data's coordinator)."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Ray's own registers with the coordinator, and starts it."""

    def _maybe_send_resource_request(self) -> None:
        """Ray's own renews what it has registered."""
