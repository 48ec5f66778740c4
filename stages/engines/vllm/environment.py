"""Where vLLM is installed."""

from __future__ import annotations

ENVIRONMENT = "engine"
"""Name of its environment (`requirements/environments`), for batch inference and the endpoint. Answers are read back
there, too, before training."""
