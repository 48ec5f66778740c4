"""What a stage has left behind: processes, actors, placement groups, listening ports, memory of a GPU.

A stage that defers something (an endpoint stays up until the run ends) is looked at when that is taken down. Only what
this run started is ended: processes that descend from this one, and actors and placement groups of its Ray job.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from runner.patches import ray_state

if TYPE_CHECKING:
    import psutil

_GRACE_S = 5.0  # what is being taken down is given this long
_POLL_S = 0.25
_MAX_TITLE = 100
_SET_CHILD_SUBREAPER = 36  # linux/prctl.h

# Of the session, which live as long as it: Ray's daemons, workers that wait for a task or are just starting, and what
# they are forked from.
_RAY_PROCESSES = (
    "ray::IDLE", "ray::SPILL", "ray::RESTORE", "default_worker.py", "raylet", "gcs_server", "log_monitor.py",
    "monitor.py", "ray/dashboard", "ray-dashboard", "runtime_env", "ray::DashboardAgent", "ray::RuntimeEnvAgent",
    "multiprocessing.resource_tracker", "fork_server.py", "fork_worker.py",
)  # fmt: skip


def kill_children() -> None:
    """End every process that descends from this one, at once: for a run that has lost its cluster."""
    for process in _descendants():
        with suppress(Exception):  # it ended by itself
            process.kill()


@dataclass(frozen=True)
class Leak:
    """Something that is left, by name, and how to end it; `end` is None for what only the end of this process ends."""

    what: str
    end: Callable[[], None] | None = None


class Leaks:
    """Looks for what is there now and was not when the run began."""

    def __init__(self) -> None:
        _adopt_orphans()
        self._before = {_identity(process) for process in _descendants()}
        self._ports = _own_ports()
        self._begun_in_session = False

    def begin(self, ray_session: bool) -> None:
        """A stage begins: what listens in this very process now is not its doing, nor what Ray opens when it starts."""
        self._ports, self._begun_in_session = _own_ports(), ray_session

    def sweep(self, ray_session: bool, *, grace_s: float = _GRACE_S) -> list[str]:
        """Name what is left and end it. Takes as long as `grace_s` only when there is something.

        ray_session: whether the run has a Ray session; its daemons and idle workers then are not leaks.
        """
        end = time.monotonic() + grace_s
        while (found := self._find(ray_session)) and time.monotonic() < end:
            time.sleep(_POLL_S)
        warnings = []
        for leak in found:
            warnings.append(f"left behind: {leak.what}{'' if leak.end is None else ', ended'}")
            if leak.end:
                with suppress(Exception):  # it may have ended by itself
                    leak.end()
        return warnings

    def _find(self, ray_session: bool) -> list[Leak]:
        actors = list(ray_state.job_actors()) if ray_session else []
        kept = {actor["Pid"] for actor in actors if ray_state.is_kept_by_session(actor)}
        leaks = [_actor_leak(actor) for actor in actors if actor["Pid"] not in kept]
        known = kept | {actor["Pid"] for actor in actors}
        leaks += list(_placement_groups()) if ray_session else []
        memory = _gpu_memory()
        for process in _descendants():
            with _gone():
                if _identity(process) in self._before or process.pid in known or _is_rays(process, ray_session):
                    continue
                leaks.append(_process_leak(process, memory.get(process.pid, 0)))
        if ray_session == self._begun_in_session:
            leaks += [Leak(f"a listener on port {port} in this process") for port in _own_ports() - self._ports]
        return leaks


def _adopt_orphans() -> None:
    """Make processes whose parent dies children of this one, where they can be found; without it they are init's."""
    with suppress(OSError, AttributeError):  # Linux only
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _gone() -> Any:
    """Passes over a process that ends while it is looked at."""
    import psutil

    return suppress(psutil.Error)


def _descendants() -> list[psutil.Process]:
    """Every process below this one that is not just waiting to be reaped."""
    import psutil

    found = []
    for process in psutil.Process().children(recursive=True):
        with _gone():
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _identity(process: psutil.Process) -> tuple[int, float]:
    """A process id is used again; with the time of birth it is not."""
    return process.pid, process.create_time()


def _is_rays(process: psutil.Process, ray_session: bool) -> bool:
    return ray_session and any(word in " ".join(process.cmdline()) for word in _RAY_PROCESSES)


def _process_leak(process: psutil.Process, gpu_bytes: int) -> Leak:
    title = " ".join(process.cmdline())[:_MAX_TITLE] or process.name()
    ports = sorted({each.laddr.port for each in process.net_connections("tcp") if each.status == "LISTEN"})
    listening = f", which listens on {', '.join(map(str, ports))}" if ports else ""
    memory = f", which holds {gpu_bytes >> 20} MiB of a GPU" if gpu_bytes else ""
    return Leak(f"process {process.pid} ({title}){listening}{memory}", process.kill)


def _own_ports() -> set[int]:
    import psutil

    return {each.laddr.port for each in psutil.Process().net_connections("tcp") if each.status == "LISTEN"}


def _actor_leak(actor: dict[str, Any]) -> Leak:
    name = f"{actor['ActorClassName']}{' ' + repr(actor['Name']) if actor['Name'] else ''}"
    return Leak(f"actor {name} (process {actor['Pid']})", lambda: ray_state.kill_actor(actor["ActorID"]))


def _placement_groups() -> Iterator[Leak]:
    """This job's placement groups that hold resources or wait for them."""
    from ray.util.placement_group import remove_placement_group

    for held in ray_state.job_placement_groups():
        yield Leak(f"placement group {held.name} of {held.bundles}", partial(remove_placement_group, held.group))


def _gpu_memory() -> dict[int, int]:
    """Bytes of GPU memory of each process that holds some, by process id; {} without NVIDIA's library."""
    try:
        import pynvml
    except ImportError:
        return {}
    held: dict[int, int] = {}
    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        for index in range(pynvml.nvmlDeviceGetCount()):
            for process in pynvml.nvmlDeviceGetComputeRunningProcesses(pynvml.nvmlDeviceGetHandleByIndex(index)):
                held[process.pid] = held.get(process.pid, 0) + (process.usedGpuMemory or 0)
    return held
