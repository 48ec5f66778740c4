"""An engine's process that imports vLLM while the process that starts it does, and not afterwards.

vLLM starts its engine as a new interpreter once all is known that it is made of, and that interpreter first imports
what its parent has just imported. Here a server of multiprocessing's (start method "forkserver", which vLLM's own
server has as an option) imports it from the first moment on, and the engine is forked from that: on two CPU cores an
endpoint with a random model of two layers was ready after 15 s instead of 21. It ends with the process that started it.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from runner.cluster.environments.fork_worker import FOLDER
from stages.patches.vllm_process import keep_files_in_session

# In the environment of replicas that have their engine's only worker in its own process: what it computes on.
ENGINE_IN_REPLICA = "RECIPE_RUNNER_ENGINE_IN_REPLICA"

_IMPORTED = ("vllm.v1.engine.core", "vllm.v1.executor.uniproc_executor", "vllm.v1.worker.worker_base")
_ON_CPU = ("stages.patches.vllm_cpu_lora",)
_ON_GPU = ("vllm.v1.worker.gpu_worker",)  # none of these touches the GPU when it is imported: CUDA does not fork


def import_vllm() -> None:
    """What an engine's processes import, in one that workers of Ray are forked from: Ray is hidden for that long, and
    the module of vLLM that looks for it when it is imported is imported again where it is used."""
    sys.modules["ray"] = None  # type: ignore[assignment]
    try:
        for name in (*_modules(os.environ[ENGINE_IN_REPLICA]), "vllm.v1.engine.async_llm"):
            importlib.import_module(name)
    finally:
        del sys.modules["ray"]
        sys.modules.pop("vllm.v1.executor.ray_utils", None)


def _modules(device: str) -> list[str]:
    return [*_IMPORTED, *(_ON_CPU if device == "cpu" else _ON_GPU)]


def begin() -> None:
    """Start the server, in a worker of Ray's whose environment asks for it (`engine_env`)."""
    from ray._private.worker import WORKER_MODE, global_worker

    if global_worker.mode == WORKER_MODE and (device := os.environ.get(ENGINE_IN_REPLICA)):
        keep_files_in_session()
        multiprocessing.set_forkserver_preload(_modules(device))
        forkserver.ensure_running()


def fork() -> None:
    """As `begin`, in a worker that is not one of Ray's yet and has imported vLLM (`fork_server`): the server is a fork
    of it, and has imported it as well."""
    address, pipe = str(Path(os.environ[FOLDER], f"engine-{os.getpid()}")), os.pipe()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    if (pid := os.fork()) == 0:
        os.close(pipe[1])
        forkserver.main(listener.detach(), pipe[0], [])
        os._exit(0)
    listener.close()
    os.close(pipe[0])
    server: Any = forkserver._forkserver
    server._forkserver_address, server._forkserver_alive_fd, server._forkserver_pid = address, pipe[1], pid


@contextmanager
def engines_from_it() -> Iterator[None]:
    """Have vLLM fork its engines' processes from the server, while the block lasts; without `begin`, from a new one."""
    from vllm.v1.engine import utils

    usual, utils.get_mp_context = utils.get_mp_context, _Context
    try:
        yield
    finally:
        utils.get_mp_context = usual


class _Process(ForkServerProcess):
    """A process with the environment that its parent has now, and not the server's."""

    def __init__(self, *, target: Callable[..., Any], kwargs: Mapping[str, Any], **how: Any) -> None:
        super().__init__(target=_run, args=(dict(os.environ), target, dict(kwargs)), **how)


class _Context(ForkServerContext):
    Process = _Process


def _run(environment: dict[str, str], target: Callable[..., Any], kwargs: dict[str, Any]) -> None:
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    # No more than differs: the process's title (VLLM::EngineCore) is found by the place of its first variables.
    os.environ.update({name: value for name, value in environment.items() if os.environ.get(name) != value})
    target(**kwargs)
