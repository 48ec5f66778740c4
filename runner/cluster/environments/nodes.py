"""Whether the nodes that a stage may run on have its environment, and the same one."""

from __future__ import annotations

import os
from collections.abc import Mapping

from runner.cluster import environments
from runner.cluster.environments import Chosen, Record
from runner.cluster.environments.build import build
from runner.cluster.session import RaySession, num_places, worker_bundle
from runner.errors import RunnerError
from runner.recipe.schema import Cluster, StageResources


def require_environment(session: RaySession, cluster: Cluster, resources: StageResources, chosen: Chosen) -> None:
    """Raise RunnerError naming the nodes that lack the environment, and the command that makes it.

    A cluster that the run starts has this machine alone; on another each node that could hold a worker is asked. What
    is missing is made first where the operator allows it.
    """
    if cluster.address is None:
        if environments.may_be_made():
            build(chosen.name, cluster.accelerator)
        reason = environments.unusable(chosen.name, cluster.accelerator)
        missing = [f"it {reason}"] if reason else []
    else:
        expected = environments.held(chosen.name, cluster.accelerator)
        missing = differing(records(session, cluster, resources, chosen.name), expected)
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


def records(session: RaySession, cluster: Cluster, resources: StageResources, name: str) -> dict[str, Record | None]:
    """The record on each node that could hold a worker, by a task there in the runner's own environment."""
    session.start()
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    bundle, place = worker_bundle(resources), (name, str(environments.home()))
    making = cluster.accelerator if environments.may_be_made() else None
    nodes = [node for node in ray.nodes() if node["Alive"] and num_places([node["Resources"]], bundle, "PACK")]
    asked = []
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked.append(ray.remote(num_cpus=0, scheduling_strategy=there)(record_here).remote(*place, making))
    names = [f"{node['NodeManagerAddress']} ({node['NodeID'][:6]})" for node in nodes]
    return dict(zip(names, ray.get(asked), strict=True))


def record_here(name: str, home: str, making: str | None) -> Record | None:
    """The environment's record on the node that runs this, made first for the accelerator `making`, None: never.

    home: the folder of all environments, which is the driver's on every node.
    """
    os.environ[environments.HOME] = home
    if making is not None:
        build(name, making)
    return environments.record(name)
