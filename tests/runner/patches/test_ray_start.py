"""How a run starts Ray's processes."""

from __future__ import annotations

import os
import subprocess

from runner.patches import ray_start


def test_processes_of_ray_are_not_in_the_session_of_the_run() -> None:
    from ray._private import services

    usual = services.ConsolePopen
    with ray_start.in_sessions_of_their_own():
        process: subprocess.Popen[bytes] = services.ConsolePopen(["sleep", "60"])
    try:
        assert os.getsid(process.pid) == process.pid != os.getsid(0)
        assert services.ConsolePopen is usual
    finally:
        process.kill()
        process.wait()
