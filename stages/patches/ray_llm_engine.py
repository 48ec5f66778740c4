"""The engine of a replica: Ray's, with its only worker in vLLM's own process instead of one more.

Imports vLLM and Ray Serve's LLM library: only a replica imports this module.
"""

from __future__ import annotations

import os
from typing import Any

import ray
from ray.llm._internal.serve.engines.vllm import vllm_engine, vllm_models
from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from vllm.utils.ompmultiprocessing import OMPProcessManager

from stages.patches.vllm_cpu_lora import CpuExecutor
from stages.patches.vllm_forkserver import ENGINE_IN_REPLICA, engines_from_it


class OneProcessEngine(VLLMEngine):  # type: ignore[misc]
    """An engine whose only worker lives in the engine's own process, on CPUs and where the replica has its GPU itself.

    Ray asks for vLLM's multiprocess executor on CPUs, which starts one process more, to set the OpenMP variables for
    it. Here the engine's process gets them, and starting is shorter by the other's imports. On a GPU, see
    `stages.engines.vllm.serving.server.has_gpu_itself`.
    """

    def _prepare_engine_config(self, callback_ctx: Any) -> tuple[Any, Any, Any]:
        """Ray's own asks a task that sees the GPU, in a process of its own; a replica that has it can look itself."""
        if not ray.get_runtime_context().get_accelerator_ids().get("GPU"):
            return super()._prepare_engine_config(callback_ctx)  # type: ignore[no-any-return]
        kept, vllm_models.EXECUTOR_BACKEND_RAY = vllm_models.EXECUTOR_BACKEND_RAY, "uni"
        try:
            engine_args, engine_config = vllm_engine._get_vllm_engine_config(self.llm_config)
        finally:
            vllm_models.EXECUTOR_BACKEND_RAY = kept
        frontend = self.llm_config.get_engine_config().frontend_kwargs
        return engine_args, vllm_engine.FrontendArgs(**frontend), engine_config

    def _start_async_llm_engine(self, engine_args: Any, engine_config: Any, placement_group: Any) -> Any:
        if not os.environ.get(ENGINE_IN_REPLICA):
            return super()._start_async_llm_engine(engine_args, engine_config, placement_group)
        if engine_config.device_config.device_type != "cpu":
            with engines_from_it():
                return super()._start_async_llm_engine(engine_args, engine_config, placement_group)
        engine_config.parallel_config.distributed_executor_backend = CpuExecutor
        with engines_from_it(), OMPProcessManager(engine_config).configure_omp_envs(rank=0, local_rank=0):
            return super()._start_async_llm_engine(engine_args, engine_config, placement_group)
