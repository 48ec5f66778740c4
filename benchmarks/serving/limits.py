"""What the endpoint's checks of requests and limits add to the time to the first token, on and off in turns.

    python -m runner recipe=viggo_quickstart pipeline=[ingest,serve,query] serve.keep_alive=true
    .venv/environments/engine/bin/python -m benchmarks.serving.limits http://127.0.0.1:8000/v1     # in another terminal

One endpoint answers all. This process passes requests on to it, with the guard in front (every limit set) and without,
one request each in turn; so what differs is what the guard adds. On a machine that does other work too, the times
from a request until it is passed on tell it best: all of the guard's work is in them, and none of the endpoint's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from benchmarks.common import measure
from stages.engines.vllm.sampling.values import wrong_values
from stages.sections.serve import Limits
from stages.serve.guard.gate import Gate, Guard
from stages.serve.guard.names import parameters_of

_PATH = "/v1/chat/completions"
_HEADERS = [(b"content-type", b"application/json")]
App = Callable[[Any, Any, Any], Awaitable[None]]
Times = dict[str, float]
"""Milliseconds from a request until it was passed on (`passed_on_ms`), and to its first token (`first_token_ms`)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="of the OpenAI API of an endpoint that runs")
    parser.add_argument("--requests", type=int, default=60, help="requests of each side (default 60)")
    args = parser.parse_args()
    turns = asyncio.run(in_turns(args.url.rstrip("/"), args.requests))
    measure.write_section("limits", report(measure.save("limits", {"overrides": [], "turns": turns})))


async def in_turns(url: str, num_requests: int) -> dict[str, list[Times]]:
    """Times of each request, by side: `off`, `on`."""
    turns: dict[str, list[Times]] = {"off": [], "on": []}
    async with httpx.AsyncClient(trust_env=False, timeout=120) as client:
        model = (await client.get(f"{url}/models")).json()["data"][0]["id"]
        sides: dict[str, App] = {"off": passed_on(client, url), "on": guarded(passed_on(client, url))}
        for number in range(-4, num_requests):
            order = list(sides) if number % 2 else list(reversed(sides))
            for side in order:
                found = await times_of(sides[side], body_of(model))
                if number >= 0:  # those before warm up
                    turns[side].append(found)
    return turns


def body_of(model: str) -> bytes:
    """A request with 950 characters, of which the engine has computed all but the first time."""
    messages = [{"role": "user", "content": "Tell me of a game. " * 50}]
    return json.dumps({"model": model, "messages": messages, "max_tokens": 4, "stream": True}).encode()


def guarded(app: App) -> Guard:
    """The application behind the guard with every limit set."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    gate = Gate(logging.getLogger("limits"))
    limits = Limits(requests_per_minute=10_000_000, max_tokens=1024)
    gate.configure({"keys": None, "limits": limits.model_dump()})
    parameters = parameters_of(ChatCompletionRequest)
    assert parameters is not None
    return Guard(app, gate, {_PATH: parameters}, wrong_values=wrong_values)


def passed_on(client: httpx.AsyncClient, url: str) -> App:
    """An application that passes the body on to the endpoint, and its answer back as it comes."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        content = (await receive())["body"]
        scope["passed_on"].append(time.perf_counter())
        headers = {"Content-Type": "application/json"}
        async with client.stream("POST", f"{url}/chat/completions", content=content, headers=headers) as answer:
            await send({"type": "http.response.start", "status": answer.status_code, "headers": []})
            async for piece in answer.aiter_bytes():
                await send({"type": "http.response.body", "body": piece, "more_body": True})

    return app


async def times_of(app: App, body: bytes) -> Times:
    """Of one request. Raises RuntimeError when its answer has no text."""
    times: list[float] = []
    scope: dict[str, Any] = {
        "type": "http", "method": "POST", "path": _PATH, "root_path": "", "passed_on": [],
        "headers": [*_HEADERS, (b"content-length", str(len(body)).encode())],
    }  # fmt: skip

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        if message.get("status", 200) != 200:
            raise RuntimeError(f"the endpoint answered {message['status']}")
        if not times and says_something(message.get("body", b"")):
            times.append(time.perf_counter())

    began = time.perf_counter()
    await app(scope, receive, send)
    if not times:
        raise RuntimeError("the answer has no text")
    return {
        "passed_on_ms": round((scope["passed_on"][0] - began) * 1000, 3),
        "first_token_ms": round((times[0] - began) * 1000, 2),
    }


def says_something(piece: bytes) -> bool:
    """Whether an event among them has text."""
    events = (line.removeprefix(b"data: ") for line in piece.splitlines() if line.startswith(b"data: {"))
    return any(choice["delta"].get("content") for event in events for choice in json.loads(event).get("choices", []))


def report(found: dict[str, Any]) -> str:
    """The comparison as Markdown."""
    off, on = found["turns"]["off"], found["turns"]["on"]
    pairs = [b["first_token_ms"] - a["first_token_ms"] for a, b in zip(off, on, strict=True)]
    row = {"requests of each side": str(len(on))}
    for side, times in (("off", off), ("on", on)):
        row[f"limits {side}: first token, ms"] = measure.cell([each["first_token_ms"] for each in times], 1)
        row[f"limits {side}: until passed on, ms"] = measure.cell([each["passed_on_ms"] for each in times], 2)
    row["first token, median of the differences of pairs, ms"] = f"{statistics.median(pairs):.2f}"
    how = (
        "By the engine's interpreter, `.venv/environments/engine/bin/python`, as the guard reads vLLM's request models."
    )
    return "\n\n".join([measure.head("Limits of requests: time to the first token", found), how, measure.table([row])])


if __name__ == "__main__":
    main()
