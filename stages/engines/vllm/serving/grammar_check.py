"""Whether the engine can use a schema or grammar, found out in processes that are ended when they take too long.

vLLM compiles them in threads of the API's and of the engine's process, which nothing can end: one request's grammar
would hold everybody else's.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
from collections import OrderedDict
from collections.abc import Callable, Iterable
from hashlib import sha256
from multiprocessing.connection import Connection
from typing import Any

from stages.engines.vllm.serving.grammar_worker import EngineConfig, run

NUM_WORKERS = 2
_REMEMBERED = 1024
_START_S = 120.0


class Worker:
    """One process, started at its first use, and again after it was ended. config: of the engine, asked for then."""

    def __init__(self, config: Callable[[], EngineConfig]) -> None:
        self._config = config
        self._process: Any = None
        self._connection: Connection | None = None

    def ask(self, kind: str, value: Any, timeout_s: float) -> str:
        """Why the engine cannot use it, or "". Blocks. Raises OSError or RuntimeError when no process starts."""
        connection = self._connection or self._start()
        try:
            connection.send((kind, value))
            if connection.poll(timeout_s):
                answer: str = connection.recv()
                return answer
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self.end()
            return "it needs too much memory, or makes its compiler fail"
        self.end()
        return f"it takes longer than {timeout_s:g} s to compile"

    def _start(self) -> Connection:
        config, context = self._config(), multiprocessing.get_context("forkserver")
        ours, theirs = context.Pipe()
        process = context.Process(target=run, args=(theirs, config), daemon=True)
        process.start()
        theirs.close()
        self._connection, self._process = ours, process
        try:
            if not self._connection.poll(_START_S) or self._connection.recv() != "ready":
                raise RuntimeError(f"was not ready in {_START_S:g} s")
        except (EOFError, RuntimeError) as error:
            self.end()
            raise RuntimeError(f"the process that tries grammars did not start: {error}") from error
        return self._connection

    def end(self) -> None:
        """Kill the process, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._process.kill()
            self._process.join()
        self._connection = self._process = None


class GrammarCheck:
    """Remembers what it has found out. A call: why the engine cannot use the value, or "".

    workers: as many are tried at the same time.
    """

    def __init__(self, workers: Iterable[Worker], log: logging.Logger) -> None:
        self._log = log
        self._idle = list(workers)
        self._places = asyncio.Semaphore(len(self._idle))
        self._known: OrderedDict[str, str] = OrderedDict()

    async def __call__(self, kind: str, value: Any, text: str, timeout_s: float) -> str:
        """text: the value as text, by which it is remembered."""
        key = sha256(f"{kind}\0{text}".encode(errors="surrogatepass")).hexdigest()
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        async with self._places:
            worker = self._idle.pop()
            asked = asyncio.ensure_future(asyncio.to_thread(worker.ask, kind, value, timeout_s))
            try:
                answer = await asyncio.shield(asked)
            except (OSError, RuntimeError) as error:  # the engine's own checks stay
                self._log.error("a grammar was not tried: %s", error)
                return ""
            finally:
                if not asked.done():
                    await asyncio.wait([asked])
                self._idle.append(worker)
        self._known[key] = answer
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return answer
