"""A training of several workers is described where there is no torch."""

from __future__ import annotations

import pickle
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import pytest

from tests.paths import ROOT

DESCRIBED = """
from ray import cloudpickle
from ray.train import ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from runner.patches.ray_train_torch import torch_workers
group = cloudpickle.loads(cloudpickle.dumps(torch_workers()))
DataParallelTrainer(print, backend_config=group, scaling_config=ScalingConfig(num_workers=2))._get_train_func()
assert group.backend_cls().share_cuda_visible_devices
print(group.framework.value)
"""


def test_the_description_imports_no_torch_and_is_that_of_a_training_with_torch() -> None:
    assert find_spec("torch") is None, "this interpreter would not show that torch is imported"
    done = subprocess.run([sys.executable, "-c", DESCRIBED], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, "torch"), done.stderr


class Group:
    """Ray Train's workers, as far as a group is made of them; notes what they are asked for."""

    def __init__(self, gpus: int) -> None:
        self.asked: list[Any] = []
        self._gpus = gpus

    def __len__(self) -> int:
        return 2

    def get_resources_per_worker(self) -> dict[str, float]:
        return {"CPU": 1, "GPU": self._gpus}

    def execute_single(self, at: int, function: Any) -> tuple[str, int]:
        assert (at, function.__name__) == (0, "get_address_and_port")
        return "10.0.0.1", 4711

    def execute_single_async(self, at: int, function: Any, *arguments: Any) -> int:
        assert pickle.loads(pickle.dumps(function)) is function
        self.asked.append((at, *arguments))
        return at


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("gpus", "backend"), [(0, "gloo"), (1, "nccl")])
def test_each_worker_enters_the_group_by_its_rank(gpus: int, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from runner.patches.ray_train_torch import torch_workers

    monkeypatch.setattr(ray, "get", lambda futures: futures)
    group, workers = Group(gpus), torch_workers()
    workers.backend_cls().on_start(group, workers)
    place = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "4711"}
    assert group.asked == [(0, place, backend, 0, 2), (1, place, backend, 1, 2)]
