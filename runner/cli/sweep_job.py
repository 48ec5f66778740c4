"""A job of a sweep as a process of its own: `python -m runner.cli.sweep_job PARENT CORES ARGUMENTS...`.

PARENT: process id of the sweep, at whose end the job is interrupted, however that came. CORES: `0,1`, or `-` for all.
"""

from __future__ import annotations

import os
import signal
import sys

from runner.cli.main import main
from runner.cluster.forked import ends_with
from runner.errors import EXIT_INTERRUPTED


def run(parent: int, cores: str, arguments: list[str]) -> int:
    """Run the command line on those cores, as long as the parent lives. Returns the exit code."""
    if not ends_with(parent, signal.SIGTERM):
        return EXIT_INTERRUPTED
    if cores != "-":
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    return main(arguments)


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
