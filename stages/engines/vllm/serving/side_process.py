"""Processes next to a replica for what nothing can end in a thread: one that takes too long is killed, and made again.

They are forked from a server that has imported vLLM.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

READY = "ready"
_START_S = 120.0
_MORE_BYTES = 4 << 30  # of address space


class LostError(Exception):
    """The process has ended over a question. too_long: it was killed after that many seconds; None where it failed."""

    def __init__(self, too_long: float | None = None) -> None:
        super().__init__(f"it takes longer than {too_long:g} s" if too_long else "it needs too much memory, or fails")
        self.too_long = too_long


class Worker:
    """One process, started at its first use, and again after it was ended.

    run: answers what comes by the connection, after READY. given: its second argument, asked for at each start.
    """

    def __init__(self, run: Callable[[Connection, Any], None], given: Callable[[], Any]) -> None:
        self._run, self._given = run, given
        self._process: Any = None
        self._connection: Connection | None = None

    def ask(self, question: Any, timeout_s: float) -> Any:
        """The answer. Blocks. Raises LostError, and OSError or RuntimeError when no process starts."""
        connection = self._connection or self.start()
        try:
            connection.send(question)
            if connection.poll(timeout_s):
                return connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self.end()
            raise LostError from None
        self.end()
        raise LostError(timeout_s)

    def start(self) -> Connection:
        """Start the process. Raises OSError or RuntimeError."""
        given, context = self._given(), multiprocessing.get_context("forkserver")
        ours, theirs = context.Pipe()
        process = context.Process(target=self._run, args=(theirs, given), daemon=True)
        process.start()
        theirs.close()
        self._connection, self._process = ours, process
        try:
            if not self._connection.poll(_START_S) or self._connection.recv() != READY:
                raise RuntimeError(f"was not ready in {_START_S:g} s")
        except (EOFError, RuntimeError) as error:
            self.end()
            raise RuntimeError(f"the process did not start: {error}") from error
        return self._connection

    def end(self) -> None:
        """Kill the process, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._process.kill()
            self._process.join()
        self._connection = self._process = None


class Workers:
    """Processes that answer one question each at a time."""

    def __init__(self, workers: Iterable[Worker]) -> None:
        self._idle = list(workers)
        self._places = asyncio.Semaphore(len(self._idle))

    async def ask(self, question: Any, timeout_s: float) -> Any:
        """The answer of the next one that is idle. Raises as `Worker.ask`."""
        return await self._by_one(lambda worker: worker.ask(question, timeout_s))

    async def begin(self) -> None:
        """Start one, so that the first question does not wait for it. Raises OSError or RuntimeError."""
        await self._by_one(Worker.start)

    async def _by_one(self, work: Callable[[Worker], Any]) -> Any:
        async with self._places:
            worker = self._idle.pop()
            asked = asyncio.ensure_future(asyncio.to_thread(work, worker))
            try:
                return await asyncio.shield(asked)
            finally:
                if not asked.done():
                    await asyncio.wait([asked])
                self._idle.append(worker)


def limit_memory() -> None:
    """Let this process have so much more than it has."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + _MORE_BYTES, now + _MORE_BYTES))
