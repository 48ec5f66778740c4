"""How a run starts Ray: on loopback, out of reach of the run's signals, without losing its own handler of SIGTERM."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PACKAGES = Path(__file__).parents[2]


def on_address(address: str) -> dict[str, Any]:
    """Options of `ray.init` that have a cluster it starts listen at this IP address alone.

    Ray 2.60 chooses the address by itself; `ray start --node-ip-address` has the setting, `ray.init` a private one.
    """
    return {"_node_ip_address": address}


def without_the_working_folder() -> dict[str, Any]:
    """Options of `ray.init` that have workers import nothing from the folder that the run is started in, which Ray puts
    before their packages: it may be a stranger's, and a file in it may have the name of a library. The runner's own
    folder stays."""
    from ray.job_config import JobConfig

    config = JobConfig()
    config._py_driver_sys_path = _Own()
    return {"job_config": config}


class _Own(list[str]):
    def extend(self, paths: Iterable[str]) -> None:
        super().extend(each for each in paths if Path(each) == _PACKAGES)


@contextmanager
def sigterm_handler(handler: Any) -> Iterator[None]:
    """Have `ray.init` set this handler of SIGTERM where it would set its own, which ends the process on the spot.

    handler: as of `signal.getsignal`.
    """
    from ray._private import utils

    set_handler = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda _: set_handler(handler)
    try:
        yield
    finally:
        utils.set_sigterm_handler = set_handler


@contextmanager
def in_sessions_of_their_own() -> Iterator[None]:
    """Have Ray start its processes where a signal to the run's process group, as `timeout` and Slurm send it, does not
    end them before the run has saved what it has. They end with the run all the same.
    """
    from ray._private import services

    usual: Any = services.ConsolePopen

    class Apart(usual):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "start_new_session": True})

    services.ConsolePopen = Apart
    try:
        yield
    finally:
        services.ConsolePopen = usual
