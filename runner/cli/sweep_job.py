"""A job of a sweep as a process of its own: `python -m runner.cli.sweep_job PARENT CORES ARGUMENTS...`.

PARENT: process id of the sweep, at whose end the job is interrupted, however that came. CORES: `0,1`, or `-` for all.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from runner.cli.main import main
from runner.errors import EXIT_INTERRUPTED

_SET_PARENT_DEATH_SIGNAL = 1  # linux/prctl.h


def run(parent: int, cores: str, arguments: list[str]) -> int:
    """Run the command line on those cores, as long as the parent lives. Returns the exit code."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the signal was asked for
        return EXIT_INTERRUPTED
    if cores != "-":
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    return main(arguments)


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
