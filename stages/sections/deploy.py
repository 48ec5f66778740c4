"""Serving on a cluster that keeps the endpoint up."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from runner.recipe.schema import Section


class Deploy(Section):
    """How `deploy` serves on a cluster that keeps it up. `cluster.address` is its dashboard's."""

    trial: bool = Field(
        True,
        description="The new version is first started and asked while the old replicas serve, which needs capacity for "
        "one more replica; without it a version that does not start leaves nothing serving until it is rolled back.",
    )
    keep_adapters: Annotated[int, Field(ge=0)] = Field(
        3, description="Adapters of earlier deploys that stay reachable next to the new one, newest first."
    )
    url: str | None = Field(
        None,
        min_length=1,
        description="Where this machine reaches Ray Serve's HTTP proxy; null: at the address and port it listens on.",
        examples=["https://models.example.com"],
    )
