"""What API keys add to the time to the first token: the endpoint's guard with 1,000 keys, against none, in turns.

    python -m benchmarks.keys
    python -m benchmarks.keys --turns 9 --requests 5000

Two endpoints of one model, one after the other, differ by more than what is measured here. So the model is left out:
behind the guard is an application that answers at once, and what the guard adds to it, it adds to any answer.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import secrets
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import measure
from stages.sections.serve import ApiKeys, Limits
from stages.serve.guard.gate import Gate, Guard
from stages.serve.guard.keys import ring_settings

_NUM_KEYS = 1000
_BODY = b'{"model": "base", "messages": [{"role": "user", "content": "' + b"x" * 4000 + b'"}], "stream": true}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5, help="turns of each side (default 5)")
    parser.add_argument("--requests", type=int, default=2000, help="requests of a turn (default 2000)")
    args = parser.parse_args()
    turns: dict[str, list[float]] = {"without": [], "with": []}
    with tempfile.TemporaryDirectory() as folder:
        keys = [secrets.token_hex(24) for _ in range(_NUM_KEYS)]
        file = Path(folder) / "keys"
        file.write_text("\n".join(keys))
        time.sleep(2.1)  # a file younger than that is read for each request
        gate = Gate(logging.getLogger("keys"))
        limits = Limits(requests_per_minute=10_000_000).model_dump()
        gate.configure({"keys": ring_settings(ApiKeys(file=str(file))), "limits": limits})
        for _ in range(args.turns):
            for side, app in (("without", at_once), ("with", Guard(at_once, gate))):
                turns[side].append(asyncio.run(first_byte_us(app, keys[-1], args.requests)))
    measure.write_section(
        "keys", report(measure.save("keys", {"overrides": [], "turns": turns, "num_keys": _NUM_KEYS}))
    )


async def at_once(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers with one event as soon as it has the body."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True})


async def first_byte_us(app: Any, key: str, num_requests: int) -> float:
    """Median microseconds from a request to the first byte of its answer."""
    headers = [(b"authorization", f"Bearer {key}".encode()), (b"content-length", str(len(_BODY)).encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}
    times = []
    for _ in range(num_requests):
        first: list[float] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": _BODY}

        async def send(message: Any, first: list[float] = first) -> None:
            if message.get("body"):
                first.append(time.perf_counter())

        began = time.perf_counter()
        await app(scope, receive, send)
        times.append((first[0] - began) * 1e6)
    return round(statistics.median(times), 1)


def report(found: dict[str, Any]) -> str:
    """The comparison as Markdown."""
    without, with_keys = found["turns"]["without"], found["turns"]["with"]
    added = [after - before for before, after in zip(without, with_keys, strict=True)]
    row = {
        "keys": str(found["num_keys"]),
        "without the guard, us": measure.cell(without, 1),
        "with it, us": measure.cell(with_keys, 1),
        "added, ms": measure.cell([each / 1000 for each in added], 3),
    }
    return "\n\n".join([measure.head("API keys: time to the first byte", found), measure.table([row])])


if __name__ == "__main__":
    main()
