"""How a vLLM engine ends: with the process that started it, and without half an answer.

vLLM runs the engine in a process of its own, and calls `prepare` in each of its processes, as the plugin that
pyproject.toml names in the entry point group `vllm.general_plugins`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.process import BaseProcess
from typing import Any


def prepare() -> None:
    """Prepare a process that multiprocessing started. Any other (a server that a shell started, say) is left alone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        end_with_parent(parent)
        end_without_answers()


def end_with_parent(parent: BaseProcess) -> None:
    """Kill this process as soon as its parent has ended.

    When the parent is killed on the spot, the engine would go on with the model in memory, and on a GPU with the GPU.
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
