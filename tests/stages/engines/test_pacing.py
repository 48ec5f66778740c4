"""`stages.engines.vllm.serving.pacing`: nothing lost, nothing late, fewer messages when many listen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from itertools import chain

import pytest

from stages.engines.vllm.serving.pacing import Pacer


async def numbers(count: int, every_s: float = 0.0) -> AsyncGenerator[int, None]:
    for number in range(count):
        await asyncio.sleep(every_s)
        yield number


async def collect(pacer: Pacer[int], items: AsyncGenerator[int, None]) -> list[list[int]]:
    return [batch async for batch in pacer.batches(items)]


def test_a_stream_alone_sends_every_item_by_itself() -> None:
    assert asyncio.run(collect(Pacer(10.0), numbers(5, 0.01))) == [[0], [1], [2], [3], [4]]


def test_streams_side_by_side_lose_nothing_and_send_fewer_messages() -> None:
    async def run() -> list[list[list[int]]]:
        pacer = Pacer[int](0.02)
        return await asyncio.gather(*(collect(pacer, numbers(50, 0.002)) for _ in range(4)))

    for batches in asyncio.run(run()):
        assert list(chain.from_iterable(batches)) == list(range(50))
        assert batches[0] == [0]
        assert len(batches) < 25


def test_the_end_does_not_wait_for_the_pause() -> None:
    async def run() -> list[list[list[int]]]:
        pacer = Pacer[int](3600.0)
        return await asyncio.wait_for(asyncio.gather(*(collect(pacer, numbers(3, 0.01)) for _ in range(2))), 10)

    assert asyncio.run(run()) == [[[0], [1, 2]], [[0], [1, 2]]]


def test_nothing_is_sent_for_an_empty_stream() -> None:
    assert asyncio.run(collect(Pacer(), numbers(0))) == []


def test_what_came_before_an_error_is_sent_and_the_error_is_raised() -> None:
    async def failing() -> AsyncGenerator[int, None]:
        yield 1
        yield 2
        raise ValueError("the engine broke")

    found: list[int] = []

    async def run() -> None:
        async for batch in Pacer[int]().batches(failing()):
            found.extend(batch)

    with pytest.raises(ValueError, match="the engine broke"):
        asyncio.run(run())
    assert found == [1, 2]


def test_a_client_that_goes_away_ends_the_engine_s_stream() -> None:
    ended: list[str] = []

    async def endless() -> AsyncGenerator[int, None]:
        try:
            while True:
                yield 1
                await asyncio.sleep(0.001)
        finally:
            ended.append("ended")

    async def run() -> int:
        pacer = Pacer[int](10.0)
        batches = pacer.batches(endless())
        await anext(batches)
        await batches.aclose()
        await asyncio.sleep(0.05)
        return len(await collect(pacer, numbers(5, 0.01)))  # alone again: the stream that went away counts no more

    assert asyncio.run(run()) == 5
    assert ended == ["ended"]
