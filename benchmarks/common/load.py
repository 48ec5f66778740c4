"""Load for an OpenAI endpoint: some clients, each streaming one chat answer after another."""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import Any

_TIMEOUT_S = 300


def measure_endpoint(
    url: str, model: str, requests: Sequence[Mapping[str, Any]], num_clients: int, num_requests: int
) -> dict[str, Any]:
    """Ask `num_requests` times with `num_clients` at once.

    requests: bodies of /chat/completions without the model, used in turn. Returns the median and 95th percentile of
    the time to the first token (ms), output tokens a second of all clients together, and the number of failures.
    """
    begin = time.perf_counter()
    answers = asyncio.run(_ask_all(url, model, list(islice(cycle(requests), num_requests)), num_clients))
    wall_s = time.perf_counter() - begin
    good = [answer for answer in answers if answer["error"] is None]
    first = sorted(answer["first_token_s"] * 1000 for answer in good)
    return {
        "num_clients": num_clients,
        "num_requests": num_requests,
        "num_failed": num_requests - len(good),
        "errors": sorted({answer["error"] for answer in answers if answer["error"]})[:3],
        "first_token_ms": round(statistics.median(first), 1) if first else None,
        "first_token_p95_ms": round(first[math.ceil(0.95 * len(first)) - 1], 1) if first else None,
        "output_tokens_per_s": round(sum(answer["num_tokens"] for answer in good) / wall_s, 1),
        "wall_s": round(wall_s, 2),
    }


async def _ask_all(url: str, model: str, requests: list[Mapping[str, Any]], num_clients: int) -> list[dict[str, Any]]:
    import aiohttp

    answers: list[dict[str, Any]] = []
    waiting = iter(requests)
    connector = aiohttp.TCPConnector(limit=num_clients)
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def client() -> None:
            for request in waiting:  # shared: each client takes the next one
                answers.append(await _ask(session, url, {"model": model, **request}))

        await asyncio.gather(*(client() for _ in range(num_clients)))
    return answers


async def _ask(session: Any, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """One streamed answer: `{first_token_s, num_tokens, error}`."""
    import aiohttp

    begin, first, num_tokens = time.perf_counter(), None, 0
    body = {**body, "stream": True, "stream_options": {"include_usage": True}}
    try:
        async with session.post(f"{url}/chat/completions", json=body) as response:
            if response.status != 200:
                return {"error": f"{response.status} {(await response.text())[:200]}"}
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    return {"error": str(event["error"])[:200]}
                num_tokens = (event.get("usage") or {}).get("completion_tokens") or num_tokens
                if first is None and any(_says_something(choice) for choice in event["choices"]):
                    first = time.perf_counter()
    except (TimeoutError, aiohttp.ClientError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    if first is None:
        return {"error": "no token"}
    return {"first_token_s": first - begin, "num_tokens": num_tokens, "error": None}


def _says_something(choice: Mapping[str, Any]) -> bool:
    return bool(choice["delta"].get("content") or choice.get("finish_reason"))
