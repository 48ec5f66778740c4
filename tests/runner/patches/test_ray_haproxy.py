"""HAProxy as a run has it: on loopback, its socket for one user, and gone when the process that started it is."""

from __future__ import annotations

import difflib
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from runner.patches import haproxy_start
from runner.patches import ray_haproxy as haproxy
from stages.serve.health import free_port

CONFIGURATION = """global
    stats socket {folder}/s mode 666 level admin
    maxconn 400
defaults
    mode http
    option splice-request
    option splice-response
    timeout connect 1s
    timeout client 1s
    timeout server 1s
frontend prometheus
    bind :{metrics}
frontend http_frontend
    bind *:{port}
listen stats
  bind *:{stats}
  stats enable
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_rays_configuration_has_the_lines_that_are_corrected() -> None:
    from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE

    assert "bind :{{ config.metrics_port }}" in HAPROXY_CONFIG_TEMPLATE
    assert "bind *:{{ config.stats_port }}" in HAPROXY_CONFIG_TEMPLATE
    assert "stats socket {{ config.socket_path }} mode 666" in HAPROXY_CONFIG_TEMPLATE
    assert "    maxconn {{ config.maxconn }}" in HAPROXY_CONFIG_TEMPLATE
    assert "    option splice-request\n    option splice-response\n" in HAPROXY_CONFIG_TEMPLATE
    assert "frontend http_frontend\n    bind " in HAPROXY_CONFIG_TEMPLATE


def test_pages_socket_splicing_and_the_limits_of_the_frontend_are_corrected_and_nothing_else() -> None:
    given = CONFIGURATION.format(folder="/f", metrics=1, port=2, stats=3)
    made = haproxy_start.corrected(given)
    assert [line for line in difflib.ndiff(given.splitlines(), made.splitlines()) if line[0] in "+-"] == [
        "-     stats socket /f/s mode 666 level admin",
        "+     stats socket /f/s mode 600 level admin",
        "-     option splice-request",
        "-     option splice-response",
        "-     bind :1",
        "+     bind 127.0.0.1:1",
        "+     stick-table type ipv6 size 100k expire 10m store conn_cur",
        "+     tcp-request connection track-sc0 src",
        "+     tcp-request connection reject if { sc0_conn_cur gt 100 }",
        "+     timeout http-request 15s",
        "+     http-request del-header x-request-disconnect-disabled",
        "-   bind *:3",
        "+   bind 127.0.0.1:3",
    ]
    assert haproxy_start.corrected(made) == made


SHOW = """
import os
from runner.patches import ray_haproxy as haproxy
from stages.serve.health import free_port
found = haproxy.environment()
assert found == haproxy.environment()
print(*[value for value in found.values() if value.startswith("/")])
print(oct(os.stat(os.path.dirname(found["RAY_SERVE_HAPROXY_SOCKET_PATH"])).st_mode & 0o777))
print(len({value for name, value in found.items() if name.endswith("_PORT")}))
"""


def test_everything_lies_in_one_folder_that_only_its_user_opens_and_that_goes_with_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", SHOW], stdout=subprocess.PIPE, text=True, check=True, env=without())
    *paths, mode, ports = done.stdout.split()
    folder = os.path.commonpath(paths)
    assert Path(folder).name.startswith("haproxy-")
    assert len(paths) == 6
    assert mode == "0o700"
    assert ports == "3"
    assert not Path(folder).exists()


def without() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if "HA_PROXY" not in name and "HAPROXY" not in name}


def test_what_the_user_has_set_stays_but_for_what_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = haproxy._binary()
    assert theirs
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", theirs)
    monkeypatch.setenv("RAY_SERVE_HAPROXY_STATS_PORT", "4711")
    found = haproxy.environment()
    assert found["RAY_SERVE_HAPROXY_STATS_PORT"] == "4711"
    assert theirs in Path(found["RAY_SERVE_HAPROXY_BINARY_PATH"]).read_text()


def test_only_the_cluster_that_starts_in_the_block_gets_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_SERVE_ENABLE_HA_PROXY", raising=False)
    monkeypatch.setenv("RAY_SERVE_HAPROXY_STATS_PORT", "4711")
    before = dict(os.environ)
    with haproxy.of_clusters_started_here():
        inside = dict(os.environ)
    assert inside.items() >= haproxy.environment().items()
    assert dict(os.environ) == before


def test_haproxy_switched_off_keeps_rays_own_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "0")
    assert list(haproxy.environment()) == ["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"]


def test_where_there_is_no_haproxy_ray_keeps_its_own_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haproxy, "_binary", lambda: None)
    assert list(haproxy.environment()) == ["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"]


def test_no_more_connections_than_files_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (1024, 1_100))
    assert haproxy._connections() == {"RAY_SERVE_HAPROXY_MAXCONN": "400"}


def test_haproxy_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    binary = haproxy._binary()
    assert binary
    folder = haproxy._folder(binary)
    assert folder
    configuration = tmp_path / "haproxy.cfg"
    metrics, port, stats = (free_port("127.0.0.1", 0) for _ in range(3))
    text = CONFIGURATION.format(folder=folder, metrics=metrics, port=port, stats=stats)
    configuration.write_text(text.replace(f"*:{port}", f"127.0.0.1:{port}"))
    starts = "import subprocess, sys; subprocess.Popen(sys.argv[1:]).wait()"
    command = [str(folder / "haproxy"), "-db", "-f", str(configuration)]
    parent = subprocess.Popen([sys.executable, "-c", starts, *command])
    try:
        child = wait_for_listener(parent, {metrics, port, stats})
        listeners = [each.laddr for each in child.net_connections("inet") if each.status == psutil.CONN_LISTEN]
        assert {each.ip for each in listeners} == {"127.0.0.1"}
        assert stat.S_IMODE((folder / "s").stat().st_mode) == 0o600
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    child.wait(timeout=10)


def wait_for_listener(parent: subprocess.Popen[bytes], ports: set[int]) -> psutil.Process:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        for child in psutil.Process(parent.pid).children():
            if child.name() == "haproxy" and ports == {
                each.laddr.port for each in child.net_connections("inet") if each.status == psutil.CONN_LISTEN
            }:
                return child
        time.sleep(0.05)
    raise AssertionError("HAProxy did not listen")
