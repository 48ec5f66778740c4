"""What a stage leaves behind on a real Ray: a process of a worker, actors, a placement group."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from runner.cluster.leaks import Leaks
from runner.cluster.session import RaySession
from runner.recipe.schema import Cluster, StageResources

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.filterwarnings("default")]


@pytest.fixture
def session() -> Iterator[RaySession]:
    session = RaySession(Cluster(num_cpus=2))
    yield session
    session.close()


def leak_a_process() -> int:
    import subprocess

    return subprocess.Popen(["sleep", "600"], start_new_session=True).pid


class Idle:
    def ready(self) -> bool:
        return True


def test_everything_left_behind_is_named_and_ended(session: RaySession) -> None:
    leaks = Leaks()
    session.start()
    leaks.begin(ray_session=True)
    assert leaks.sweep(ray_session=True) == []
    import ray

    pid = session.call(leak_a_process, StageResources())
    actors = [
        ray.remote(num_cpus=0)(Idle).remote(),
        ray.remote(num_cpus=0)(Idle).options(name="kept", lifetime="detached", max_restarts=-1).remote(),
    ]
    ray.get([actor.ready.remote() for actor in actors])
    group = ray.util.placement_group([{"CPU": 1}], name="reserved")
    ray.get(group.ready())
    remarks = leaks.sweep(ray_session=True, grace_s=0.5)
    assert f"left behind: process {pid} (sleep 600), ended" in remarks
    assert "left behind: placement group reserved of [{'CPU': 1.0}], ended" in remarks
    assert len([text for text in remarks if text.startswith("left behind: actor Idle")]) == 2
    assert len(remarks) == 4
    assert leaks.sweep(ray_session=True, grace_s=30) == []
    end = time.monotonic() + 30
    while ray.available_resources().get("CPU") != 2:
        assert time.monotonic() < end
        time.sleep(0.1)
    session.close()
    assert leaks.sweep(ray_session=False, grace_s=30) == []
