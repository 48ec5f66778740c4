"""What a Ray cluster holds: actors and placement groups of this job, its largest node, its head.

Ray 2.60's public way to list the first two, `ray.util.state`, asks the dashboard's server, which a run's own cluster
does not start. These ask the head node itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# Actors that a session keeps: those by which Ray Data and Ray Train count and place their jobs.
_SESSION_ACTORS = (
    "_StatsActor", "AutoscalingRequester", "_AutoscalingCoordinatorActor", "ActorLocationTracker",
    "_TelemetryAgent", "TrainStateActor",
)  # fmt: skip
_HEAD = "node:__internal_head__"


@dataclass(frozen=True)
class HeldPlaces:
    """A placement group that holds resources or waits for them. bundles: resources by name."""

    name: str
    bundles: list[dict[str, float]]
    group: Any


def job_actors() -> Iterator[dict[str, Any]]:
    """This job's actors that are not dead: ActorID, ActorClassName, Name and Pid of each."""
    import ray
    from ray._private.state import state

    job = ray.JobID.from_hex(ray.get_runtime_context().get_job_id())
    for actor in state.actor_table(None, job_id=job).values():
        if actor["State"] != "DEAD":
            yield actor


def is_kept_by_session(actor: dict[str, Any]) -> bool:
    """Whether the actor is one that Ray's libraries keep as long as the session."""
    return str(actor["ActorClassName"]).endswith(_SESSION_ACTORS)


def kill_actor(actor_id: str) -> None:
    """End an actor for good. `ray.kill` wants a handle, which nobody has of an actor without a name."""
    import ray
    from ray._private.worker import global_worker

    global_worker.core_worker.kill_actor(ray.ActorID.from_hex(actor_id), True)


def job_placement_groups() -> Iterator[HeldPlaces]:
    """This job's placement groups that have not been removed."""
    import ray
    from ray._private.state import state
    from ray.core.generated import gcs_pb2
    from ray.util.placement_group import PlacementGroup

    job = ray.get_runtime_context().get_job_id()
    for serialized in state._connect_and_get_accessor().get_placement_group_table():
        table = gcs_pb2.PlacementGroupTableData.FromString(serialized)
        if table.state == gcs_pb2.PlacementGroupTableData.REMOVED or table.creator_job_id.hex() != job:
            continue
        group = PlacementGroup(ray.PlacementGroupID(table.placement_group_id))
        bundles = [dict(bundle.unit_resources) for bundle in table.bundles]
        yield HeldPlaces(table.name or group.id.hex()[:12], bundles, group)


def largest_node() -> dict[str, float] | None:
    """Upper limits of what a cluster that scales itself can have; None for one of a fixed size."""
    from ray._private.state import state

    largest: dict[str, float] | None = state.get_max_resources_from_cluster_config()
    return largest


def head_address() -> str:
    """IP address of the head node."""
    import ray

    head = next(node for node in ray.nodes() if _HEAD in node["Resources"])
    return str(head["NodeManagerAddress"])
