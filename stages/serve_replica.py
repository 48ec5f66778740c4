"""What Ray Serve imports in a replica. The engine's process begins to import vLLM first, and the replica beside it."""

from stages.engine_head_start import begin

begin()

from stages.serve_app import AdapterServer  # noqa: E402

__all__ = ["AdapterServer"]
