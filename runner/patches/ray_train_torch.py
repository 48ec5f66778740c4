"""Ray Train's process group of torch workers, by a configuration that is made where there is no torch.

`ray.train.torch` imports torch, and the driver and the training's controller would with it. Here the workers alone do.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

_LEAVE_S = 30.0  # Ray Train's own


def torch_workers() -> Any:
    """As `ray.train.torch.TorchConfig()`: NCCL between workers with GPUs, else Gloo."""
    import ray
    from ray.exceptions import GetTimeoutError
    from ray.train._internal.utils import get_address_and_port
    from ray.train.backend import Backend, BackendConfig
    from ray.train.v2._internal.util import TrainingFramework

    class Group(Backend):  # type: ignore[misc]
        share_cuda_visible_devices = True

        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            address, port = worker_group.execute_single(0, get_address_and_port)
            backend = "nccl" if worker_group.get_resources_per_worker().get("GPU", 0) > 0 else "gloo"
            place, size = {"MASTER_ADDR": address, "MASTER_PORT": str(port)}, len(worker_group)
            ray.get([worker_group.execute_single_async(at, _join, place, backend, at, size) for at in range(size)])

        def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
            with suppress(GetTimeoutError):
                ray.get(worker_group.execute_async(_leave, several=len(worker_group) > 1), timeout=_LEAVE_S)

    class TorchWorkers(BackendConfig):  # type: ignore[misc]
        backend_cls = Group
        train_func_context = staticmethod(_context)
        framework = TrainingFramework.TORCH

    return TorchWorkers()


def _context() -> Any:
    from ray.train.torch.config import TorchConfigContextManager

    return TorchConfigContextManager()


def _join(place: dict[str, str], backend: str, rank: int, size: int) -> None:
    """Enter the group, on one of the workers. place: variables that say where the first of them listens."""
    from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group

    os.environ.update(place)
    _set_torch_distributed_env_vars()
    _setup_torch_process_group(backend=backend, world_rank=rank, world_size=size, init_method="env://")


def _leave(several: bool) -> None:
    from ray.train.torch.config import _shutdown_torch

    _shutdown_torch(destroy_process_group=several)
