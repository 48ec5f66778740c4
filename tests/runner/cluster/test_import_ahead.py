"""Workers that are forked from a process that has imported their libraries, and those that cannot be."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from runner.cluster import environments
from runner.cluster.environments import ahead, fork_server, fork_worker
from runner.cluster.environments.ahead import ForkServer, ForkServers
from runner.cluster.session import RaySession
from runner.recipe.schema import Cluster, StageResources

IMPORTED = "colorsys"  # a module that nothing else here needs
WORKER = f"""
import json, os, sys
if sys.argv[2:] == ["fail"]:
    sys.exit(3)
seen = [{IMPORTED!r} in sys.modules, sys.argv[2:], os.environ.get("A"), os.environ.get("ONLY_SERVER"), os.getcwd(),
        os.getpgid(0) == os.getpid(), __name__, sys.path[0], os.environ.get("PYTORCH_NVML_BASED_CUDA_CHECK")]
with open(sys.argv[1] + ".part", "w") as file:
    json.dump(seen, file)
os.rename(sys.argv[1] + ".part", sys.argv[1])
"""

Seen = Callable[..., Any]


@pytest.fixture(autouse=True)
def this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "python", lambda name: Path(sys.executable))


@pytest.fixture
def server() -> Iterator[ForkServer]:
    made = ForkServer("tool", [IMPORTED], {"ONLY_SERVER": "1"})
    yield made
    made.close()


@pytest.fixture
def seen(tmp_path: Path) -> Seen:
    """Starts a worker by `py_executable` as Ray does, and returns what it has seen."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)

    def start(py_executable: str, *arguments: str, variables: Mapping[str, str] | None = None) -> Any:
        found = tmp_path / f"seen-{time.monotonic_ns()}"
        command = [*shlex.split(py_executable), str(script), str(found), *arguments]
        env = {**os.environ, **(variables or {})}
        subprocess.run(command, env=env, cwd=tmp_path, timeout=60, check=False)
        return json.loads(found.read_text()) if until(found.exists) else None

    return start


def until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_a_worker_has_what_the_server_imported_and_all_else_of_its_own(
    server: ForkServer, seen: Seen, tmp_path: Path
) -> None:
    found = seen(server.py_executable, "b", variables={"A": "1"})
    assert found == [True, ["b"], "1", None, str(tmp_path), True, "__main__", str(tmp_path), None]


def test_a_worker_starts_by_itself_where_the_server_has_ended(server: ForkServer, seen: Seen) -> None:
    server.close()
    assert seen(server.py_executable, "b")[:2] == [False, ["b"]]


def test_a_worker_that_has_stopped_waiting_is_not_forked_as_well(tmp_path: Path) -> None:
    assert (fork_server.READY, fork_server.WAITING) == (fork_worker.READY, fork_worker.WAITING)
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(2)\n")
    server = ForkServer("tool", ["slow"], {"PYTHONPATH": str(tmp_path)})
    try:
        (tmp_path / "worker.py").write_text("import pathlib, sys\npathlib.Path(sys.argv[1]).touch()\n")
        there = tmp_path / "forked"
        address = shlex.split(server.py_executable)[-1]
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection, Path(os.devnull).open() as null:
            connection.connect(address)
            job = {"folder": str(tmp_path), "variables": {}, "arguments": [str(tmp_path / "worker.py"), str(there)]}
            socket.send_fds(connection, [json.dumps(job).encode()], [null.fileno()] * 3)
        assert not until(there.exists, 4.0)
    finally:
        server.close()


def test_a_worker_starts_by_itself_where_the_import_fails(seen: Seen) -> None:
    server = ForkServer("tool", ["there_is_no_such_module"], {})
    assert seen(server.py_executable)[0] is False
    server.close()


def test_once_a_worker_has_failed_others_start_by_themselves(
    server: ForkServer, seen: Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.until", lambda condition: condition())
    assert seen(server.py_executable, "fail") is None
    monkeypatch.undo()
    monkeypatch.setattr(environments, "python", lambda name: Path(sys.executable))
    time.sleep(1.0)
    assert seen(server.py_executable)[0] is False


def test_a_server_ends_with_the_process_that_started_it_and_leaves_nothing() -> None:
    code = f"""
import sys
from pathlib import Path
from runner.cluster import environments
environments.python = lambda name: Path(sys.executable)
from runner.cluster.environments.ahead import ForkServer
server = ForkServer("tool", [{IMPORTED!r}], {{}})
print(server.py_executable.split()[-1], server.pid, flush=True)
import os; os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    address, pid = done.stdout.split()
    assert until(lambda: not Path(address).parent.exists())
    assert until(lambda: not Path("/proc", pid).exists() or "Z" in Path("/proc", pid, "stat").read_text().split()[2])


@pytest.mark.parametrize("there", [True, False])
def test_a_process_that_has_imported_ray_is_not_forked(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threading.active_count", lambda: 1)
    if there:
        monkeypatch.setitem(sys.modules, "ray", sys)
    else:
        monkeypatch.delitem(sys.modules, "ray", raising=False)
    assert fork_server.unfit() is there


def test_a_process_with_threads_is_not_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.setattr("threading.active_count", lambda: 2)
    assert fork_server.unfit()


def test_workers_that_differ_in_their_variables_have_servers_of_their_own() -> None:
    servers = ForkServers()
    try:
        first, again, other = (
            servers.runtime_env("tool", [IMPORTED], {"env_vars": {"A": value}})["py_executable"] for value in "112"
        )
        assert first == again != other
    finally:
        servers.close()


@pytest.mark.parametrize("given", [{"working_dir": "/x"}, {"env_vars": {}, "pip": ["x"]}])
def test_workers_whose_runtime_environment_is_more_than_variables_import_by_themselves(given: dict[str, Any]) -> None:
    assert ForkServers().runtime_env("tool", [IMPORTED], given) == {**given, "py_executable": sys.executable}


def test_the_switch_has_workers_import_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ahead.SWITCH, "0")
    assert ForkServers().runtime_env("tool", [IMPORTED], {}) == {"py_executable": sys.executable}


def test_workers_on_the_cluster_of_others_import_by_themselves() -> None:
    session = RaySession(Cluster(address="10.0.0.1:6379"))
    assert session.import_ahead("tool", [IMPORTED], {}) == {"py_executable": sys.executable}


@pytest.mark.parametrize(("cpus", "tasks", "idle"), [(2, 1, False), (3, 1, True), (4, 2, True), (4, 3, False)])
def test_cpus_are_idle_where_two_are_left(cpus: int, tasks: int, idle: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cpus)))
    assert RaySession(Cluster()).has_idle_cpus(StageResources(cpus_per_worker=1.0), tasks) is idle
