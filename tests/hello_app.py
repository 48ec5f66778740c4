"""The smallest application of Ray Serve: somebody else's, on the cluster that a recipe is deployed to."""

from __future__ import annotations

from typing import Any


def build(args: dict[str, Any]) -> Any:
    """Answers every request with a word."""
    from ray import serve

    class Hello:
        def __call__(self, request: Any) -> str:
            return "hello"

    return serve.deployment(Hello, ray_actor_options={"num_cpus": 0}).bind()
