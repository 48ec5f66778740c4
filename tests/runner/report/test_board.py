"""What stages tell the driver, and the driver the stages, by the store of Ray's head node."""

from __future__ import annotations

from typing import Any

import pytest
from ray.experimental import internal_kv

from runner.cluster.session import ProgressHandle, RaySession, _Board
from runner.recipe.schema import Cluster


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], bytes]:
    """Ray's key-value store, by namespace and key."""
    held: dict[tuple[str, str], bytes] = {}

    def put(key: str, value: Any, *, namespace: str) -> None:
        held[namespace, key] = value.encode() if isinstance(value, str) else value

    def get(key: bytes, *, namespace: str) -> bytes | None:
        return held.get((namespace, key.decode()))

    def names(prefix: str, *, namespace: str) -> list[bytes]:
        return [key.encode() for space, key in held if space == namespace and key.startswith(prefix)]

    def delete(key: str, *, namespace: str, del_by_prefix: bool = False) -> None:
        for each in [item.decode() for item in names(key, namespace=namespace)] if del_by_prefix else [key]:
            held.pop((namespace, each), None)

    monkeypatch.setattr(internal_kv, "_internal_kv_put", put)
    monkeypatch.setattr(internal_kv, "_internal_kv_get", get)
    monkeypatch.setattr(internal_kv, "_internal_kv_list", names)
    monkeypatch.setattr(internal_kv, "_internal_kv_del", delete)
    monkeypatch.setattr(internal_kv, "_internal_kv_exists", lambda key, *, namespace: (namespace, key) in held)
    return held


def test_the_driver_sees_the_latest_of_each_stage_of_its_own_run(store: dict[tuple[str, str], bytes]) -> None:
    numpy = pytest.importorskip("numpy")
    ProgressHandle("ingest", "mine").update(5, 10, "row")
    ProgressHandle("train", "mine").update(1, 3, "step", loss=2.5)
    ProgressHandle("train", "mine").update(2, None, "step", loss=numpy.float32(0.5))
    ProgressHandle("train", "another").update(3, 3, "step")
    assert _Board("mine").latest() == {
        "ingest": {"done": 5, "total": 10, "unit": "row"},
        "train": {"done": 2, "total": None, "unit": "step", "loss": 0.5},
    }


def test_a_stage_learns_that_the_run_is_to_end(store: dict[tuple[str, str], bytes]) -> None:
    session = RaySession(Cluster())
    handle = ProgressHandle("train", session._board)
    assert not handle.is_stopping()
    session.ask_to_stop()
    assert handle.is_stopping()
    assert not ProgressHandle("train", "another").is_stopping()
    session.ask_to_stop(False)
    assert not handle.is_stopping()


def test_a_run_leaves_nothing_in_the_store_of_a_cluster_that_stays(store: dict[tuple[str, str], bytes]) -> None:
    ProgressHandle("train", "mine").update(1, 3, "step")
    _Board("mine").stop(True)
    ProgressHandle("train", "another").update(1, 3, "step")
    _Board("mine").clear()
    assert list(_Board("another").latest()) == ["train"]
    assert len(store) == 1


def test_work_continues_when_its_progress_cannot_be_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(internal_kv, "_internal_kv_put", fail)
    ProgressHandle("train", "mine").update(1, 3, "step")
