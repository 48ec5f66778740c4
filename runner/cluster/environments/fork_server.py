"""The program of a process that imports what workers of an environment import, and that they are forked from.

Runs in the environment's interpreter, by its path, with standard modules and what it is told to import. It ends with
the process that started it, whose end closes its standard input. What `fork_worker` sends becomes a worker: that
program, with its arguments, variables and files, in a process group of its own, as Ray starts workers and kills them.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

AFTER_FORK = "RECIPE_RUNNER_AFTER_FORK"  # module:function that a worker calls first, where its variables have this
_MOST_BYTES = 1 << 20  # of what a worker is made of; Linux allows 128 KiB for one variable
Job = tuple[dict[str, Any], list[int]]  # what a worker is made of, and its standard files
READY, WAITING = b"r", b"w"  # as of `fork_worker`, which this program does not import
_ANSWER_S = 5.0
_CUDA_IS_UNUSED = 3  # CUDA_ERROR_NOT_INITIALIZED


def main(root: str, address: str, listening: str, *imports: str) -> None:
    """Import, then fork workers until standard input ends. root: folder of the runner's own packages. address: in a
    folder of its own. listening: the file there. imports: modules, or `module:function`, which imports more.

    Those who connect before wait. They get no answer, and start as they would have, where a process must not be forked
    (`unfit`), and once a worker has failed.
    """
    sys.path[0] = root
    with socket.socket(fileno=int(listening)) as listener:
        for each in imports:
            call(each)
        job = None if unfit() else _served(listener)
    if job:
        _become(*job)
    shutil.rmtree(Path(address).parent, ignore_errors=True)


def call(name: str) -> None:
    """Import a module, and call its function where the name has one."""
    module, _, function = name.partition(":")
    found = importlib.import_module(module)
    if function:
        getattr(found, function)()


def unfit() -> bool:
    """Whether what has been imported does not survive a fork: CUDA in use, threads, or Ray, which has read the settings
    of a cluster that is not its worker's."""
    return cuda_is_used() or threading.active_count() > 1 or "ray" in sys.modules


def _served(listener: socket.socket) -> Job | None:
    """Fork workers until standard input ends or one fails. In a new process what it is to become, in this one None."""
    failed = threading.Event()

    def reap(*_: Any) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[1]:
                    failed.set()

    signal.signal(signal.SIGCHLD, reap)
    gc.freeze()
    while listener in select.select([listener, sys.stdin], [], [])[0] and not failed.is_set():
        if job := _accepted(listener):
            return job
    return None


def cuda_is_used() -> bool:
    """Whether this process has begun to use CUDA, by asking the driver's library for what needs it."""
    try:
        loaded = "libcuda.so" in Path("/proc/self/maps").read_text(encoding="utf-8")
        return loaded and ctypes.CDLL("libcuda.so.1").cuDeviceGetCount(ctypes.byref(ctypes.c_int())) != _CUDA_IS_UNUSED
    except (OSError, AttributeError):
        return True


def _accepted(listener: socket.socket) -> Job | None:
    """In a new process what it is to become, with its standard files; None in this one."""
    connection, _ = listener.accept()
    with connection:
        text, files, _, _ = socket.recv_fds(connection, _MOST_BYTES, 3)
        with suppress(OSError):  # the other has ended
            connection.settimeout(_ANSWER_S)
            connection.send(READY)
            if connection.recv(1) == WAITING and os.fork() == 0:
                return json.loads(text), files
        for file in files:
            os.close(file)
    return None


def _become(job: dict[str, Any], files: list[int]) -> None:
    """Be the worker, from its environment to its exit code; where that fails, start as if there were no server. This
    process never returns from it."""
    code: Any = 1
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for standard, file in enumerate(files):
            os.dup2(file, standard)
            os.close(file)
        os.chdir(job["folder"])
        replace_variables(job["variables"])
        sys.argv = job["arguments"]
        sys.path.insert(0, str(Path(sys.argv[0]).parent))
        if after := os.environ.get(AFTER_FORK):
            call(after)
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        os.execv(sys.executable, [sys.executable, *job["arguments"]])  # noqa: S606
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def replace_variables(variables: dict[str, str]) -> None:
    """Have these alone. No more than differs is written: a process's title is found by the place of its first ones."""
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in variables.items() if os.environ.get(name) != value})


if __name__ == "__main__":
    main(*sys.argv[1:])
