"""How a vLLM engine ends: with the process that started it, without half an answer, and without files left over.

vLLM runs the engine in a process of its own, and calls `prepare` in each of its processes, as the plugin that
pyproject.toml names in the entry point group `vllm.general_plugins`.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from stages.patches.vllm_torchvision import stand_in

_MAX_SOCKET_PATH = 107  # bytes, unix(7)
_SOCKET_NAME = 36  # bytes, vLLM's: a UUID; that of a server of multiprocessing is shorter


def prepare() -> None:
    """Prepare one of Ray's processes, and one that multiprocessing started; in any, what vLLM imports and lacks."""
    stand_in()
    keep_kernels_together()
    if "ray" in sys.modules:
        keep_files_in_session()
    parent = multiprocessing.parent_process()
    if parent is not None:
        end_with_parent(parent)
        end_without_answers()


def keep_kernels_together() -> None:
    """Have Triton's kernels lie in vLLM's cache, in one folder for all engines of this node.

    An engine that compiles its graph has Triton keep them next to it (torch._inductor names the folder in the
    environment, unless one is named), and one that loads the compiled graph looks for them where Triton does by itself:
    the second start would compile those of LoRA, attention and sampling again (benchmarks/RESULTS.md, "Starts").
    """
    from vllm import envs

    os.environ.setdefault("TRITON_CACHE_DIR", str(Path(envs.VLLM_CACHE_ROOT, "triton_cache")))


async def engine_end(client: Any, poll_s: float = 0.2) -> None:
    """Wait until the engine of vLLM's client is dead: until a process of it has ended, or vLLM finds out otherwise."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    sentinels: list[int] = getattr(client.engine_core.resources.engine_manager, "sentinels", list)()
    for sentinel in sentinels:
        loop.add_reader(sentinel, ended.set)
    try:
        while not (ended.is_set() or client.errored):
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), poll_s)
    finally:
        for sentinel in sentinels:
            loop.remove_reader(sentinel)


def keep_files_in_session() -> None:
    """Have sockets of vLLM and of a server of multiprocessing, which an engine leaves when it is killed, lie among
    those of the Ray session.

    They would stay in the temporary folder without end; a session's folder goes when its cluster has ended.
    """
    from ray._private import worker

    folder = worker._global_node.get_sockets_dir_path() if worker._global_node else ""
    if folder and len(os.fsencode(folder)) + 1 + _SOCKET_NAME <= _MAX_SOCKET_PATH:
        os.environ.setdefault("VLLM_RPC_BASE_PATH", folder)  # the engine's process inherits it
        multiprocessing.current_process()._config.setdefault("tempdir", folder)  # type: ignore[attr-defined]


def end_with_parent(parent: BaseProcess) -> None:
    """Kill this process as soon as its parent has ended.

    When the parent is killed, the engine would continue with the model in memory, and on a GPU with the GPU.
    """

    def wait() -> None:
        parent.join()  # by a pipe, of which the parent holds the other end: it waits without polling
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()


def end_without_answers() -> None:
    """Have an engine that is told to end (SIGTERM) say nothing to the requests that it has.

    vLLM would send the tokens that are there as an answer that has ended, and half an answer would pass for a
    prediction. Who waits for one learns that the engine has died, and asks the next.
    """
    from vllm.v1.engine.core import EngineCoreProc, EngineShutdownState

    send = EngineCoreProc._send_abort_outputs_to_client

    def send_unless_ending(engine: Any, *args: Any) -> None:
        if engine.shutdown_state == EngineShutdownState.RUNNING:
            send(engine, *args)

    EngineCoreProc._send_abort_outputs_to_client = send_unless_ending
