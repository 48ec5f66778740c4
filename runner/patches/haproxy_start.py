"""What Ray Serve starts in HAProxy's place: corrects the configuration that it is given, and becomes HAProxy.

Run as a script in an isolated interpreter, so it imports nothing but the standard library.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

_LOOPBACK = "127.0.0.1"
_OWN_PAGES = ("frontend prometheus", "listen stats")
_FRONTEND = "frontend http_frontend"
_SET_PARENT_DEATH_SIGNAL = 1  # linux/prctl.h
# With spliced connections HAProxy 2.8 does not pass on that some clients have closed theirs: the answer is computed to
# its end, and HAProxy spins meanwhile. See docs/operations.md for a minimal case.
_SPLICE = re.compile(r"^\s*option splice-(request|response)\b")
_MAXCONN = re.compile(r"^\s*maxconn (\d+)", re.MULTILINE)
_HEADERS = "timeout http-request 15s"  # to the end of a request's headers
_BY_ADDRESS = ("stick-table type ipv6 size 100k expire 10m store conn_cur", "tcp-request connection track-sc0 src")
_NOT_FOR_CLIENTS = "http-request del-header x-request-disconnect-disabled"
_SHARE = 4  # no address has more than this part of all connections


def corrected(configuration: str) -> str:
    """Ray Serve's configuration with its own pages on loopback, its socket for its user alone, limits and no splicing.

    Correcting it twice changes nothing more.
    """
    lines, section = [], ""
    limits = _limits(configuration)
    for line in configuration.splitlines():
        if line and not line[0].isspace():
            section = line.strip()
        if section in _OWN_PAGES:
            line = re.sub(r"^(\s*bind )\*?:", rf"\g<1>{_LOOPBACK}:", line)
        if section == "global":
            line = re.sub(r"^(\s*stats socket .* mode )666\b", r"\g<1>600", line)
        if _SPLICE.match(line) or line in limits:
            continue
        lines.append(line)
        if section == _FRONTEND and line.lstrip().startswith("bind "):
            lines += limits
    return "\n".join([*lines, ""])


def _limits(configuration: str) -> list[str]:
    """Lines of the frontend: connections of an address, how long headers may take, and a header that no client sends.

    A client that turns off Ray Serve's watch over disconnects would have answers computed for nobody.
    """
    found = _MAXCONN.search(configuration)
    lines = [_HEADERS, _NOT_FOR_CLIENTS]
    if found:
        most = max(1, int(found[1]) // _SHARE)
        lines = [*_BY_ADDRESS, f"tcp-request connection reject if {{ sc0_conn_cur gt {most} }}", *lines]
    return [f"    {line}" for line in lines]


def become(binary: str, arguments: Sequence[str]) -> None:
    """Become HAProxy, with the configuration behind `-f` corrected, and end when the process that started this does."""
    import ctypes

    path = Path(arguments[arguments.index("-f") + 1])
    path.write_text(corrected(path.read_text()))
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    os.execv(binary, [binary, *arguments])  # noqa: S606


if __name__ == "__main__":
    become(sys.argv[1], sys.argv[2:])
