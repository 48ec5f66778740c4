"""Whether the nodes that a stage may run on have its environment, and the same one."""

from __future__ import annotations

from collections.abc import Mapping

from runner.cluster import environments
from runner.cluster.environments import Chosen, Record
from runner.cluster.session import RaySession, num_places, worker_bundle
from runner.errors import RunnerError
from runner.recipe.schema import Cluster, StageResources


def require_environment(session: RaySession, cluster: Cluster, resources: StageResources, chosen: Chosen) -> None:
    """Raise RunnerError naming the nodes that lack the environment, and the command that makes it.

    A cluster that the run starts has this machine alone; on another each node that could hold a worker is asked.
    """
    if cluster.address is None:
        reason = environments.unusable(chosen.name, cluster.accelerator)
        missing = [f"it {reason}"] if reason else []
    else:
        expected = environments.held(chosen.name, cluster.accelerator)
        missing = differing(_records(session, resources, chosen.name), expected)
    if missing:
        raise RunnerError(
            f"{chosen.key}={chosen.value} runs in the environment {chosen.name}: {'; '.join(missing)}",
            f"Run `{environments.command(chosen.name, cluster.accelerator)}` on each node, or in their image.",
        )


def differing(records: Mapping[str, Record | None], expected: Record | None) -> list[str]:
    """What is wrong with the nodes' environments, a line for each node. expected: None where any will do that all have.

    records: by address of the node, None where there is no environment.
    """
    expected = expected or next((each for each in records.values() if each), None)
    return [f"node {node} {problem}" for node, found in records.items() if (problem := _problem(found, expected))]


def _problem(found: Record | None, expected: Record | None) -> str:
    if found is None or expected is None:
        return "does not have it"
    if found.lock_sha256 != expected.lock_sha256:
        return f"has it of another lock ({found.lock_sha256[:8]}, expected {expected.lock_sha256[:8]})"
    return environments.other_than_here(found)


def _records(session: RaySession, resources: StageResources, name: str) -> dict[str, Record | None]:
    """By a task on each node that could hold a worker, in the runner's own environment."""
    session.start()
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    bundle, home = worker_bundle(resources), str(environments.home())
    nodes = [node for node in ray.nodes() if node["Alive"] and num_places([node["Resources"]], bundle, "PACK")]
    asked = [
        ray.remote(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))(
            environments.record
        ).remote(name, home)
        for node in nodes
    ]
    return dict(zip((node["NodeManagerAddress"] for node in nodes), ray.get(asked), strict=True))
