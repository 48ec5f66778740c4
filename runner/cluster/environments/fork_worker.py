"""The program that Ray starts a worker by where workers are forked: `fork_worker.py ADDRESS WORKER.py ARGUMENTS...`.

It hands everything that makes the worker to the server (`fork_server`) and ends. Where the server is not there, or does
not answer in time, it becomes the worker itself, which then imports everything itself.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

FOLDER = "RECIPE_RUNNER_FORK_FOLDER"  # variable of a forked worker: the server's folder, which ends with the server
READY, WAITING = b"r", b"w"  # the server can fork; the worker has not started by itself meanwhile
_WAIT_S = 40.0  # for the server's imports; Ray gives a worker a minute to register


def main(address: str, *worker: str) -> None:
    """Have the worker forked; else be it."""
    if not _forked(address, worker):
        os.execv(sys.executable, [sys.executable, *worker])  # noqa: S606


def _forked(address: str, worker: tuple[str, ...]) -> bool:
    variables = {**os.environ, FOLDER: str(Path(address).parent)}
    job = {"folder": str(Path.cwd()), "variables": variables, "arguments": worker}
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(_WAIT_S)
            connection.connect(address)
            socket.send_fds(connection, [json.dumps(job).encode()], [0, 1, 2])
            return connection.recv(1) == READY and connection.send(WAITING) > 0
    except OSError:
        return False


if __name__ == "__main__":
    main(*sys.argv[1:])
