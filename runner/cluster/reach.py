"""Whether a cluster can be reached before Ray is asked to join it, and whether it still can while a run works on it.

Ray waits for minutes for an address that does not answer, and ends the driver without a word when its head is lost.
"""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from runner.errors import RunnerError

_PATIENCE_S = 20.0
_RAY_PORT = 6379
_EVERY_S = 1.0
_ANSWER_S = 5.0
# Ray puts /ray/session_<date>_<time>_<microseconds>_<pid>/sockets/plasma_store below it; a socket's path ends at 107.
_MOST_TEMPORARY_CHARACTERS = 107 - len("/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store")


def check_reachable(address: str) -> None:
    """Raise RunnerError with the address and the reason unless something answers there within 20 seconds.

    address: as `cluster.address`; `auto` is left to Ray, which knows of clusters on this machine only.
    """
    plain = address.removeprefix("ray://")
    if plain in ("auto", "local"):
        return
    host, _, port = plain.rpartition(":") if ":" in plain else (plain, "", str(_RAY_PORT))
    try:
        number = int(port)
        socket.create_connection((host.strip("[]"), number), timeout=_PATIENCE_S).close()
    except (OSError, ValueError, OverflowError) as error:
        reason = "no answer within 20 s" if isinstance(error, TimeoutError) else str(error)
        raise RunnerError(
            f"no Ray cluster answers at cluster.address={address}: {reason}",
            "Correct the address, start the cluster with `ray start --head`, or leave cluster.address out to have the "
            "run start its own.",
        ) from error


def is_this_machine(address: str | None) -> bool:
    """Whether a cluster of that address (as `cluster.address`) is one that this machine starts, or that runs on it."""
    if address in (None, "auto", "local"):
        return True
    host = urlsplit(address if "://" in str(address) else f"ray://{address}").hostname
    return host in ("localhost", "127.0.0.1", "::1")


def check_temporary_folder() -> None:
    """Raise RunnerError when the path of the temporary folder is too long for the names of Ray's sockets."""
    folder = tempfile.gettempdir()
    if len(folder.encode()) > _MOST_TEMPORARY_CHARACTERS:
        raise RunnerError(
            f"the temporary folder {folder} has {len(folder.encode())} characters, and Ray's sockets in it "
            "would have paths of more than 107",
            f"Set TMPDIR to a folder of at most {_MOST_TEMPORARY_CHARACTERS} characters: TMPDIR=/tmp.",
        )


class Watch:
    """Asks the cluster's processes again and again whether they are there, in a thread of its own.

    addresses: what each is -> its host:port: the head's store (GCS), and this machine's node (raylet), without which
    Ray waits without end. patience_s: for how long one may be away, as when the head is restarted. on_lost: is called
    once, in that thread, with the reason.
    """

    def __init__(self, addresses: Mapping[str, str], patience_s: float, on_lost: Callable[[str], None]) -> None:
        self._addresses, self._patience_s, self._on_lost = dict(addresses), patience_s, on_lost
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name="cluster", daemon=True).start()

    def stop(self) -> None:
        self._ended.set()

    def _watch(self) -> None:
        answered = dict.fromkeys(self._addresses, time.monotonic())
        while not self._ended.wait(_EVERY_S):
            for what, address in self._addresses.items():
                host, _, port = address.rpartition(":")
                try:
                    socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
                    answered[what] = time.monotonic()
                except OSError as error:
                    away_s = time.monotonic() - answered[what]
                    if away_s > self._patience_s and not self._ended.is_set():
                        self._on_lost(f"{what} at {address} is lost: {error}")
                        return
