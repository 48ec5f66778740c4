"""What the stages ask of Ray, against what the cluster has."""

from __future__ import annotations

from typing import Any

import pytest

from tests.runner.recipes import QWEN, problems

pytestmark = pytest.mark.usefixtures("fake_stages")
LOCAL_GPUS = {"cluster.address": None, "cluster.num_gpus": 4, "cluster.num_cpus": 32}


def test_a_cluster_without_gpus_is_asked_for_none() -> None:
    found = problems({"resources.train.gpus_per_worker": 1, "resources.infer.accelerator_type": "A10G"})
    assert set(found) == {"resources.train.gpus_per_worker", "resources.infer.accelerator_type"}


@pytest.mark.parametrize("stage", ["train", "infer", "serve"])
def test_a_cluster_with_gpus_is_asked_for_some(stage: str) -> None:
    key = f"resources.{stage}.gpus_per_worker"
    found = problems({key: 0}, QWEN)
    assert list(found) == [key]
    assert found[key].hint.startswith("Set it to 1")


@pytest.mark.parametrize(
    ("stage", "instead"),
    [
        ("train", "resources.train.num_workers=4"),
        ("infer", "infer.engine_kwargs.tensor_parallel_size=4"),
        ("serve", "serve.engine_kwargs.tensor_parallel_size=4"),
    ],
)
def test_a_worker_takes_one_gpu(stage: str, instead: str) -> None:
    key = f"resources.{stage}.gpus_per_worker"
    found = problems({key: 4}, QWEN)
    assert list(found) == [key]
    assert instead in found[key].hint


def test_ranks_of_an_engine_share_no_gpu() -> None:
    found = problems({"resources.infer.gpus_per_worker": 0.5, "infer.engine_kwargs.tensor_parallel_size": 2}, QWEN)
    assert list(found) == ["resources.infer.gpus_per_worker"]


def test_engines_are_not_counted_by_num_workers() -> None:
    found = problems({"resources.infer.num_workers": 2, "resources.serve.num_workers": 2})
    assert "infer.concurrency" in found["resources.infer.num_workers"].hint
    assert "serve.autoscaling" in found["resources.serve.num_workers"].hint


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"resources.train.num_workers": 5}, "resources.train.gpus_per_worker"),
        ({"infer.concurrency": 5}, "resources.infer.gpus_per_worker"),
        ({"infer.engine_kwargs.tensor_parallel_size": 2}, "resources.infer.gpus_per_worker"),
        ({"serve.autoscaling": {"min_replicas": 5, "max_replicas": 5}}, "resources.serve.gpus_per_worker"),
        ({"serve.autoscaling": {"initial_replicas": 5, "max_replicas": 5}}, "resources.serve.gpus_per_worker"),
        ({"resources.train.cpus_per_worker": 9}, "resources.train.cpus_per_worker"),
        ({"resources.ingest": {"cpus_per_worker": 33}}, "resources.ingest.cpus_per_worker"),
    ],
)
def test_the_cluster_that_is_started_is_large_enough(changes: dict[str, Any], key: str) -> None:
    found = problems({**LOCAL_GPUS, **changes}, QWEN)
    assert list(found) == [key]
    assert "cluster.num_" in found[key].message
    assert problems({**LOCAL_GPUS}, QWEN) == {}


def test_more_replicas_may_be_allowed_than_fit_at_once() -> None:
    assert problems({**LOCAL_GPUS, "serve.autoscaling": {"min_replicas": 1, "max_replicas": 50}}, QWEN) == {}


def test_the_size_of_another_cluster_is_not_known() -> None:
    assert problems({"resources.train.num_workers": 500, "cluster.address": "auto"}, QWEN) == {}


def test_custom_resources_must_be_there() -> None:
    found = problems({"resources.train.custom": {"fast_disk": 1}})
    assert found["resources.train.custom.fast_disk"].hint == "Set cluster.resources.fast_disk."
    assert problems({"resources.train.custom": {"fast_disk": 1}, "cluster.resources": {"fast_disk": 1}}) == {}


def test_a_range_of_workers_is_for_a_stage_that_continues_with_others() -> None:
    one_to_two = {"min": 1, "max": 2}
    found = problems({f"resources.{stage}.num_workers": one_to_two for stage in ("ingest", "train", "evaluate")})
    assert set(found) == {"resources.ingest.num_workers", "resources.evaluate.num_workers"}
    assert "as many workers at its end" in found["resources.ingest.num_workers"].message
    found = problems({"resources.train.num_workers": {"min": 3, "max": 2}})
    assert "min above its max" in found["resources.train.num_workers"].message


def test_a_cluster_that_the_run_starts_holds_the_most_workers() -> None:
    found = problems({**LOCAL_GPUS, "resources.train.num_workers": {"min": 1, "max": 8}}, QWEN)
    assert "8 x 1" in found["resources.train.gpus_per_worker"].message


@pytest.mark.parametrize("key", ["cluster.resources", "submit.resources", "resources.train.custom"])
@pytest.mark.parametrize(
    ("amounts", "words"),
    [
        ({"CPU": 8}, "is not a name of a custom resource"),
        ({"GPU": 1}, "is not a name of a custom resource"),
        ({"memory": 1}, "is not a name of a custom resource"),
        ({"a b": 1}, "is not a name of a custom resource"),
        ({"": 1}, "is not a name of a custom resource"),
        ({"x" * 5000: 1}, "is not a name of a custom resource"),
        ({"fast_disk": -1}, "must be greater than or equal to 0"),
        ({"fast_disk": 1e15}, "must be less than or equal to 1"),
        ({"fast_disk": 0.00001}, "must be"),
    ],
)
def test_a_custom_resource_is_one_that_ray_can_count(key: str, amounts: dict[str, float], words: str) -> None:
    found = problems({key: amounts})
    (name,) = amounts
    assert words in found[f"{key}.{name}"].message


def test_a_cluster_has_whole_resources_and_a_worker_may_ask_for_parts() -> None:
    assert list(problems({"cluster.resources": {"disk": 1.5}})) == ["cluster.resources.disk"]
    whole = {"cluster.resources": {"disk": 2, "node:a": 1}, "resources.train.custom": {"disk": 0.5, "node:a": 0.001}}
    assert problems({**whole, "submit.resources": {"node:10.0.0.1": 0.001}}) == {}
