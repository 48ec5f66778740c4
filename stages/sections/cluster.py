"""The cluster, with what engines on CPUs take of it."""

from __future__ import annotations

from pydantic import Field

from runner.recipe import schema


class Cluster(schema.Cluster):
    """The Ray cluster to run on."""

    cpu_kv_cache_gib: schema.PositiveInt = Field(2, description="GiB of memory for the KV cache of an engine on CPUs.")
