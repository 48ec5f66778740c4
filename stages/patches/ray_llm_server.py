"""Ray Serve's LLM server as a base class whose parts are replaced by plain names.

Imports vLLM and Ray Serve's LLM library: only a replica imports this module.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from ray import serve
from ray._common.usage.usage_lib import usage_stats_enabled
from ray.llm._internal.common.callbacks.base import CallbackBase as StartCallback
from ray.llm._internal.common.models import global_id_manager
from ray.llm._internal.serve.core.configs.llm_config import DiskMultiplexConfig, LLMConfig
from ray.llm._internal.serve.utils.lora_serve_utils import LoraModelLoader
from ray.serve.llm.deployment import LLMServer

from runner.patches import ray_serve
from stages.patches.ray_llm_engine import OneProcessEngine

__all__ = ["AdapterLoader", "LLMConfig", "ReplicaServer", "StartCallback"]


class AdapterLoader(LoraModelLoader):  # type: ignore[misc]
    """Loads adapters by `fetch`. Ray's own takes object stores only, and keeps what it downloaded by name."""

    @abstractmethod
    def fetch(self, where: dict[str, str], adapter_id: str) -> Path:
        """The adapter's folder on this node. where: `experimental_configs.adapter_store` of the LLM config."""

    async def load_model_from_config(self, lora_model_id: str, llm_config: Any) -> DiskMultiplexConfig:
        """Fetch the adapter of `<model_id>:<adapter_id>` and say where on this node's disk it lies."""
        if lora_model_id not in self.disk_cache:
            where = llm_config.experimental_configs["adapter_store"]
            adapter_id = lora_model_id.partition(":")[2]
            folder = await asyncio.to_thread(self.fetch, where, adapter_id)
            self.disk_cache[lora_model_id] = DiskMultiplexConfig(
                model_id=lora_model_id,
                max_total_tokens=None,
                local_path=str(folder),
                lora_assigned_int_id=global_id_manager.next(),
            )
        return self.disk_cache[lora_model_id]


class ReplicaServer(LLMServer):  # type: ignore[misc]
    """Ray's LLM server with an engine of one process; a subclass says how adapters are loaded and tokens are sent."""

    loader: ClassVar[type[AdapterLoader]]
    _default_engine_cls = OneProcessEngine

    @abstractmethod
    async def adapter(self, name: str) -> Any:
        """Have the engine load the adapter that a request asks for, if it has not. Returns its LoRARequest."""

    @abstractmethod
    def batches(self, items: AsyncGenerator[Any, None]) -> AsyncGenerator[list[Any], None]:
        """The pieces of a streamed answer, in the lists that are sent."""

    @property
    def engine_client(self) -> Any:
        """vLLM's client of the engine that has been started."""
        return self.engine._engine_client

    @property
    def engine_arguments(self) -> dict[str, Any]:
        """The arguments of vLLM and of its server, as they were given to the replica."""
        return dict(self._llm_config.engine_kwargs)

    @property
    def max_adapters(self) -> int | None:
        """How many adapters this replica may hold; None when it serves the base model alone."""
        multiplex = self._llm_config.multiplex_config()
        return int(multiplex.max_num_models_per_replica) if multiplex is not None else None

    async def load_adapter(self, name: str) -> None:
        """Fetch the adapter and have the engine load it."""
        await self.engine.resolve_lora(await self._load_model(name))

    def lora_request(self, name: str) -> Any:
        """vLLM's LoRARequest of an adapter that is loaded."""
        return self.engine._oai_models.lora_requests[name]

    async def _start_engine(self) -> None:
        """Start the engine. Where usage reports are off, do not start Ray's actor for them and wait for it (4 s)."""
        if usage_stats_enabled():
            await super()._start_engine()
        else:
            await self.engine.start()

    async def _maybe_resolve_lora_from_multiplex(self) -> None:
        if name := serve.get_multiplexed_model_id():
            await self.adapter(name)

    def _batch_output_stream(self, generator: AsyncGenerator[Any, None]) -> AsyncGenerator[list[Any], None]:
        return self.batches(generator)

    def _init_multiplex_loader(self, model_downloader_cls: Any = None) -> None:
        """Ray Serve does not know which replica has which adapter where its HAProxy passes requests on."""
        super()._init_multiplex_loader(model_downloader_cls or self.loader)
        if ray_serve.answers_http_itself() and self.max_adapters is not None:
            self._load_model = partial(self.loader().load_model_from_config, llm_config=self._llm_config)
