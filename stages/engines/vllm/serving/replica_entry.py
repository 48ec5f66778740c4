"""What Ray Serve imports in a replica. The engine's process begins to import vLLM first, then the replica does."""

from stages.patches.vllm_forkserver import begin

begin()

from stages.engines.vllm.serving.replica import AdapterServer  # noqa: E402

__all__ = ["AdapterServer"]
