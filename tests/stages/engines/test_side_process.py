"""Processes that answer one question at a time, and what is made of it when one does not."""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import psutil
import pytest

from stages.engines.vllm.serving import grammar_check
from stages.engines.vllm.serving.chat_worker import Rendering
from stages.engines.vllm.serving.grammar_check import GrammarCheck
from stages.engines.vllm.serving.side_process import READY, LostError, Worker, Workers, limit_memory

pytestmark = pytest.mark.timeout(60)


def answer(connection: Connection, given: Any) -> None:
    limit_memory()
    connection.send(READY)
    while True:
        asked = connection.recv()
        if asked == "die":
            os._exit(1)
        if asked == "sleep":
            time.sleep(50)
        if isinstance(asked, int):
            try:
                asked = len(mmap.mmap(-1, asked))  # of address space alone
            except OSError:
                asked = "too much"
        connection.send((given, asked))


def another_word(connection: Connection, given: Any) -> None:
    connection.send("hello")
    time.sleep(50)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    made = Worker(answer, lambda: "given")
    yield made
    made.end()


@pytest.mark.parametrize(("question", "seconds"), [("sleep", 0.3), ("die", None)])
def test_a_process_that_does_not_answer_is_ended_and_made_again(
    question: str, seconds: float | None, worker: Worker
) -> None:
    assert worker.ask("a", 30) == ("given", "a")
    before = psutil.Process(worker._process.pid)
    with pytest.raises(LostError) as caught:
        worker.ask(question, seconds or 30)
    assert caught.value.too_long == seconds
    assert not before.is_running()
    assert worker.ask("b", 30) == ("given", "b")


def test_a_process_has_so_much_more_memory_than_it_began_with(worker: Worker) -> None:
    assert worker.ask(1 << 30, 30) == ("given", 1 << 30)
    assert worker.ask(5 << 30, 30) == ("given", "too much")


def test_a_process_that_does_not_say_that_it_is_ready_is_ended() -> None:
    worker = Worker(another_word, lambda: None)
    with pytest.raises(RuntimeError, match="the process did not start: was not ready"):
        worker.ask("a", 1)
    assert worker._process is None


class Slow:
    """A worker that counts how many ask it at once."""

    def __init__(self) -> None:
        self.now, self.most, self.lock = 0, 0, threading.Lock()

    def ask(self, question: Any, timeout_s: float) -> Any:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.2)
        with self.lock:
            self.now -= 1
        return question


def test_each_answers_one_question_at_a_time_and_the_others_wait() -> None:
    one, two = Slow(), Slow()

    async def ask() -> list[Any]:
        workers: Any = Workers([one, two])  # type: ignore[list-item]
        return await asyncio.gather(*(workers.ask(number, 5) for number in range(5)))

    assert asyncio.run(ask()) == [0, 1, 2, 3, 4]
    assert (one.most, two.most) == (1, 1)


class Held:
    """A worker that answers when it is let go."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.let_go = threading.Event()

    def ask(self, question: Any, timeout_s: float) -> Any:
        self.begun.append(question)
        self.let_go.wait()
        return question


def test_who_is_cancelled_leaves_the_process_to_the_next_when_it_is_idle() -> None:
    held = Held()

    async def ask() -> Any:
        workers: Any = Workers([held])  # type: ignore[list-item]
        first = asyncio.ensure_future(workers.ask("first", 5))
        while not held.begun:
            await asyncio.sleep(0.01)
        first.cancel()
        second = asyncio.ensure_future(workers.ask("second", 5))
        await asyncio.sleep(0.5)
        begun = list(held.begun)
        held.let_go.set()
        return begun, await second

    assert asyncio.run(ask()) == (["first"], "second")


def test_a_replica_starts_where_no_process_for_templates_does() -> None:
    def broken() -> Any:
        raise RuntimeError("no engine")

    asyncio.run(Rendering(Workers([Worker(answer, broken)])).begin())


def test_answers_about_grammars_are_known_by_kind_and_text_and_the_oldest_unused_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grammar_check, "_REMEMBERED", 2)
    asked: list[Any] = []

    class Each:
        async def ask(self, question: Any, timeout_s: float) -> str:
            asked.append(question)
            return f"not {question[0]}"

    check = GrammarCheck(Each(), logging.getLogger("check"))  # type: ignore[arg-type]
    for kind in ("json", "regex", "json", "grammar", "json", "regex"):
        assert asyncio.run(check(kind, "a", "a", 1)) == f"not {kind}"
    assert [kind for kind, _ in asked] == ["json", "regex", "grammar", "regex"]
