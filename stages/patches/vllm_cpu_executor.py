"""vLLM's in-process executor, without the port that listens on every address.

Imports vLLM: only Ray's processes import this module. It is apart from what a replica imports, because the engine's
process needs it and should not import Ray Serve for it.
"""

from __future__ import annotations

import tempfile

from vllm import envs
from vllm.v1.executor.uniproc_executor import UniProcExecutor


class LoopbackExecutor(UniProcExecutor):  # type: ignore[misc]
    """One worker in the engine's own process, whose process group of one meets in a file.

    vLLM's own meets at a TCP port, and torch's TCPStore listens there on all addresses, without any authentication.
    """

    def _distributed_args(self) -> tuple[str, int, int]:
        self._meeting_place = tempfile.TemporaryDirectory(prefix="vllm-", dir=envs.VLLM_RPC_BASE_PATH)
        return f"file://{self._meeting_place.name}/store", 0, 0
