"""How many pixels of images may be decoded at once, of all requests together. What is more waits for its turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from stages.serve.guard.images import MOST_PIXELS

MOST_AT_ONCE = MOST_PIXELS
"""Libraries hold about 10 bytes a pixel, in copies of several forms (`tests/chaos/test_image_bombs.py`)."""
SMALL = 2_000_000
"""A request of so many pixels holds no more than a body of 10 MiB does, and never waits."""

Receive = Callable[[], Awaitable[Any]]


class PixelBudget:
    """The pixels of requests of which the engine's input is not made yet. Those that wait are let in in their order."""

    def __init__(self, most: int = MOST_AT_ONCE) -> None:
        self._most, self._held, self._num_waiting = most, 0, 0
        self._turn, self._freed = asyncio.Lock(), asyncio.Event()

    @asynccontextmanager
    async def held(self, pixels: int, receive: Receive) -> AsyncIterator[Callable[[], None] | None]:
        """Waits until so many may be held, and gives a function that returns them before the block ends; None where
        the client has left before.

        receive: of a request whose body was read, so that nothing but the client's leaving is still to come.
        """
        held = [0]

        def give_back() -> None:
            self._held -= held[0]
            held[0] = 0
            self._freed.set()

        async def take() -> None:
            async with self._turn:
                while not self._fits(pixels):
                    self._freed.clear()
                    await self._freed.wait()
                hold()

        def hold() -> None:
            self._held += pixels
            held[0] = pixels

        try:
            if pixels <= SMALL:
                yield give_back
            elif not self._num_waiting and self._fits(pixels):
                hold()
                yield give_back
            else:
                self._num_waiting += 1
                try:
                    let_in = await _unless_gone(take, receive)
                finally:
                    self._num_waiting -= 1
                yield give_back if let_in else None
        finally:
            give_back()

    def _fits(self, pixels: int) -> bool:
        return not self._held or self._held + pixels <= self._most


async def _unless_gone(wanted: Callable[[], Awaitable[None]], receive: Receive) -> bool:
    """Whether what is waited for has come before the client has gone; it is not waited for any longer."""
    waiting = [asyncio.ensure_future(wanted()), asyncio.ensure_future(receive())]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        return waiting[0].done()
    finally:
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
