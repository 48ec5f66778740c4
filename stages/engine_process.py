"""A vLLM engine must not outlive the process that started it.

vLLM runs the engine in a process of its own. When its parent is killed on the spot, the engine goes on with the model
in memory, and on a GPU with the GPU. vLLM calls `end_with_parent` in each of its processes, as the plugin that
pyproject.toml names in the entry point group `vllm.general_plugins`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def end_with_parent() -> None:
    """Kill this process as soon as the one that it was started from by multiprocessing has ended.

    Any other process (a server that a shell started, say) is left alone.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()  # by a pipe, of which the parent holds the other end: it waits without polling
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()
