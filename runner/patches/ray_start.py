"""How a run starts Ray: on loopback, and without losing its own handler of SIGTERM."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def on_address(address: str) -> dict[str, Any]:
    """Options of `ray.init` that have a cluster it starts listen at this IP address alone.

    Ray 2.60 chooses the address by itself; `ray start --node-ip-address` has the setting, `ray.init` a private one.
    """
    return {"_node_ip_address": address}


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
