"""Whether the engine can use a schema or grammar, found out in processes that are ended when they take too long.

vLLM compiles them in threads of the API's and of the engine's process, which nothing can end: one request's grammar
would hold everybody else's.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from hashlib import sha256
from typing import Any

from stages.engines.vllm.serving.side_process import LostError, Workers

NUM_WORKERS = 2
_REMEMBERED = 1024


class GrammarCheck:
    """Remembers what it has found out. A call: why the engine cannot use the value, or "".

    workers: whose `run` is that of `grammar_worker`.
    """

    def __init__(self, workers: Workers, log: logging.Logger) -> None:
        self._workers, self._log = workers, log
        self._known: OrderedDict[str, str] = OrderedDict()

    async def __call__(self, kind: str, value: Any, text: str, timeout_s: float) -> str:
        """text: the value as text, by which it is remembered."""
        key = sha256(f"{kind}\0{text}".encode(errors="surrogatepass")).hexdigest()
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        try:
            answer: str = await self._workers.ask((kind, value), timeout_s)
        except LostError as error:
            answer = f"{error} to compile" if error.too_long else "it needs too much memory, or makes its compiler fail"
        except (OSError, RuntimeError) as error:  # the engine's own checks stay
            self._log.error("a grammar was not tried: %s", error)
            return ""
        self._known[key] = answer
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return answer
