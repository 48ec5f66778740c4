"""Workers that are forked from a process that has imported their libraries, while Ray starts or other work is done.

Workers of one environment import the same for many seconds. On a cluster that the run starts itself, the server
(`fork_server`) does so once, from the first moment on, and uses no GPU.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.cluster import environments
from runner.cluster.environments import fork_server, fork_worker

# (environment, imports, given runtime environment) -> Ray's runtime environment of workers; `RaySession.import_ahead`.
ImportAhead = Callable[[str | None, Sequence[str], Mapping[str, Any]], dict[str, Any]]

SWITCH = "RECIPE_RUNNER_IMPORT_AHEAD"  # 0: every worker imports everything itself
_MOST_WAITING = 64
_ROOT = Path(__file__).resolve().parents[3]
# Libraries ask whether there is a GPU when they are imported. torch then asks NVML, which leaves CUDA unused.
_ASK_NVML = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}


class ForkServer:
    """A server in the environment, with the variables that its workers have. imports: as of `fork_server`."""

    def __init__(self, environment: str, imports: Sequence[str], variables: Mapping[str, str]) -> None:
        self._python = str(environments.python(environment))
        self._folder = tempfile.mkdtemp(prefix="recipe-runner-fork-")  # which only its owner may enter
        self._address = str(Path(self._folder, "s"))
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
            Path(self._folder, "log").open("wb") as log,
        ):
            listener.bind(self._address)
            listener.listen(_MOST_WAITING)
            command = [self._python, fork_server.__file__, str(_ROOT), self._address, str(listener.fileno()), *imports]
            self._process = subprocess.Popen(  # noqa: S603
                command,
                env={**os.environ, **_ASK_NVML, **variables},
                pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def py_executable(self) -> str:
        """What Ray starts such a worker by."""
        return shlex.join([self._python, "-S", fork_worker.__file__, self._address])

    def close(self) -> None:
        """End the server. Its workers stay."""
        with self._process:
            self._process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


class ForkServers:
    """The servers of a run, one for each environment, list of imports and set of variables."""

    def __init__(self) -> None:
        self._servers: dict[tuple[Any, ...], ForkServer] = {}

    def runtime_env(self, environment: str, imports: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
        """Ray's runtime environment of workers that are forked, whose server is started the first time.

        given: as of `environments.runtime_env`; one that changes more than variables is only given the interpreter.
        """
        plain = environments.runtime_env(environment, given)
        if os.environ.get(SWITCH) == "0" or not set(given) <= {"env_vars"}:
            return plain
        variables = given.get("env_vars", {})
        key = (environment, *imports, None, *sorted(variables.items()))
        if key not in self._servers:
            self._servers[key] = ForkServer(environment, imports, variables)
        return {**plain, "py_executable": self._servers[key].py_executable}

    def close(self, environment: str | None = None) -> None:
        """End the servers of the environment; None: all."""
        for key in [key for key in self._servers if environment in (None, key[0])]:
            self._servers.pop(key).close()
