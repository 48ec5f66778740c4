"""Where vLLM is installed."""

from __future__ import annotations

ENVIRONMENT: str | None = None
"""Name of its environment (`requirements/environments`), for batch inference and the endpoint; None: the runner's own.
Answers are read back there, too, before training."""
