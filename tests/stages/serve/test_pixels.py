"""The pixels that all requests in progress hold: bounded, in turn, given back, and not waited for by who has left."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from stages.engines.input_made import input_is_made
from stages.serve.guard.gate import Guard
from stages.serve.guard.names import Parameters
from stages.serve.guard.pixels import SMALL, PixelBudget
from tests.chaos.image_bombs import png
from tests.stages.serve.test_guard import gate

M = 1_000_000


async def nothing() -> Any:
    await asyncio.Event().wait()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Asked:
    """A request that holds pixels until it is ended."""

    def __init__(self, budget: PixelBudget, pixels: int) -> None:
        self.begun, self.gone, self.left = False, asyncio.Event(), asyncio.Event()
        self.begins, self.ended = asyncio.Event(), asyncio.Event()
        self.task = asyncio.ensure_future(self._ask(budget, pixels))

    async def _ask(self, budget: PixelBudget, pixels: int) -> None:
        async with budget.held(pixels, self.gone.wait) as give_back:
            if give_back is None:
                self.left.set()
                return
            self.begun = True
            await self.begins.wait()
            give_back()
            await self.ended.wait()


def ran(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))


def test_what_is_too_much_waits_in_its_order_until_an_input_is_made() -> None:
    async def test() -> None:
        budget = PixelBudget(100 * M)
        first, second, third, fourth = (Asked(budget, pixels * M) for pixels in (60, 50, 30, 40))
        await settled()
        assert [each.begun for each in (first, second, third, fourth)] == [True, False, False, False]
        first.begins.set()  # it continues, and holds nothing
        await settled()
        assert [each.begun for each in (second, third, fourth)] == [True, True, False]
        third.begins.set()
        await settled()
        assert fourth.begun
        assert not first.task.done()
        for each in (first, second, third, fourth):
            each.task.cancel()

    ran(test)


def test_small_requests_never_wait() -> None:
    async def test() -> None:
        budget = PixelBudget(10 * M)
        large, waiting = Asked(budget, 10 * M), Asked(budget, 10 * M)
        small = [Asked(budget, SMALL) for _ in range(20)]
        await settled()
        assert large.begun
        assert not waiting.begun
        assert all(each.begun for each in small)

    ran(test)


def test_one_that_is_larger_than_the_budget_is_alone() -> None:
    async def test() -> None:
        budget = PixelBudget(10 * M)
        first = Asked(budget, 50 * M)
        await settled()
        second = Asked(budget, 3 * M)
        await settled()
        assert first.begun
        assert not second.begun

    ran(test)


@pytest.mark.parametrize("how", ["leaves", "is cancelled"])
def test_who_leaves_is_not_waited_for(how: str) -> None:
    async def test() -> None:
        budget = PixelBudget(10 * M)
        first, second, third = (Asked(budget, pixels * M) for pixels in (10, 10, 5))
        await settled()
        if how == "leaves":
            second.gone.set()
        else:
            second.task.cancel()
        await settled()
        assert second.task.done()
        assert second.left.is_set() == (how == "leaves")
        assert not third.begun
        first.task.cancel()
        await settled()
        assert third.begun
        assert not second.begun

    ran(test)


def test_one_that_is_cancelled_as_its_turn_comes_holds_nothing() -> None:
    async def test() -> None:
        budget = PixelBudget(10 * M)
        for turns in range(8):
            first, second = Asked(budget, 10 * M), Asked(budget, 10 * M)
            await settled()
            first.task.cancel()
            for _ in range(turns):
                await asyncio.sleep(0)
            second.task.cancel()
            await settled()
            third = Asked(budget, 10 * M)
            await settled()
            assert third.begun
            third.task.cancel()
            await settled()

    ran(test)


def test_requests_with_large_images_wait_for_one_another_in_the_guard() -> None:
    """One of 49 million pixels is in the application, the next when the input is made of it."""
    uri = f"data:image/png;base64,{base64.b64encode(png(7000, 7000)).decode()}"
    content = [{"type": "image_url", "image_url": {"url": uri}}]
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]}).encode()
    inside: list[asyncio.Event] = []
    ended = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        inside.append(mine := asyncio.Event())
        await mine.wait()
        input_is_made()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await ended.wait()
        await send({"type": "http.response.body", "body": b"b"})

    async def ask(guard: Guard, sent: list[Any]) -> None:
        arrived = False

        async def receive() -> Any:
            nonlocal arrived
            if arrived:
                await nothing()
            arrived = True
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}
        await guard(scope, receive, send)

    async def until(reached: Callable[[], bool]) -> None:
        while not reached():
            await asyncio.sleep(0.01)

    async def test() -> None:
        known = Parameters(names={"model": None, "messages": None}, kinds={})
        guard = Guard(app, gate(), {"/v1/chat/completions": known})
        sent: list[list[Any]] = [[] for _ in range(2)]
        asking = [asyncio.ensure_future(ask(guard, each)) for each in sent]
        await until(lambda: len(inside) == 1)
        await asyncio.sleep(0.2)
        assert len(inside) == 1
        inside[0].set()
        await until(lambda: len(inside) == 2)
        for each in inside:
            each.set()
        ended.set()
        await asyncio.gather(*asking)
        assert all([message.get("body") for message in each] == [None, b"a", b"b"] for each in sent)

    ran(test)
