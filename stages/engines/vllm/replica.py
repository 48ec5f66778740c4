"""What runs inside Ray Serve: the LLM server, its adapter loading, and the OpenAI API of each replica.

Ray Serve LLM has a deployment of its own for the API, which passes every request, and every token of an answer, on to
a replica of the model by a call from process to process. Here a replica answers for itself, as vLLM's server does.

Imports Ray Serve and vLLM (seconds): import this module inside functions only.

Ray's own adapter loading takes object stores only, loads whatever lies under a prefix, and keeps what it downloaded
by name. Here adapters come from any artifact store, complete and verified, and are kept by digest.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.util
from fastapi import FastAPI
from ray import serve
from ray._common.usage.usage_lib import usage_stats_enabled
from ray._private.worker import global_worker
from ray.llm._internal.common.callbacks.base import CallbackBase
from ray.llm._internal.common.models import global_id_manager
from ray.llm._internal.serve.core.configs.llm_config import DiskMultiplexConfig, LLMConfig
from ray.llm._internal.serve.core.configs.openai_api_models import (
    ErrorInfo,
    ErrorResponse,
    ModelCard,
    ModelList,
    OpenAIHTTPException,
    to_model_metadata,
)
from ray.llm._internal.serve.core.ingress.ingress import DEFAULT_ENDPOINTS, init
from ray.llm._internal.serve.core.protocol import RawRequestInfo
from ray.llm._internal.serve.engines.vllm import vllm_engine, vllm_models
from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from ray.llm._internal.serve.utils.lora_serve_utils import LoraModelLoader
from ray.llm._internal.serve.utils.server_utils import get_response_for_error
from ray.serve import context as serve_context
from ray.serve._private import replica as serve_replica
from ray.serve._private.constants import RAY_SERVE_ENABLE_DIRECT_INGRESS
from ray.serve.llm.deployment import LLMServer
from ray.serve.llm.ingress import OpenAiIngress
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from vllm.utils.ompmultiprocessing import OMPProcessManager
from vllm.v1.engine.exceptions import EngineDeadError

from runner.storage.store import open_store
from stages.engines.vllm.failure import ENGINE_FAILED, root_cause
from stages.engines.vllm.grammar_check import NUM_WORKERS, GrammarCheck, Worker
from stages.engines.vllm.grammar_worker import EngineConfig
from stages.engines.vllm.pacing import Pacer
from stages.engines.vllm.pieces import answer_piece
from stages.engines.work import Front, Work
from stages.models.adapter import AdapterNotFoundError, Recent, adapter_name, fetch_adapter, find_adapter, list_adapters
from stages.patches.vllm_cpu_lora import CpuExecutor
from stages.patches.vllm_forkserver import ENGINE_IN_REPLICA, engines_from_it
from stages.patches.vllm_process import engine_end

_LOOPBACK = "127.0.0.1"
_LOG_BYTES = 256 << 10


def _listen_on_loopback() -> None:
    """Have this replica's port for calls between replicas listen on loopback, when the whole cluster does.

    Ray Serve binds it to all addresses and has no setting for that. Ray's token guards it all the same.
    """
    if ray.util.get_node_ip_address() == _LOOPBACK:
        bind = serve_replica.add_port_to_grpc_server
        serve_replica.add_port_to_grpc_server = lambda server, _: bind(server, f"{_LOOPBACK}:0")


class StoreLoader(LoraModelLoader):  # type: ignore[misc]
    """Loads an adapter from the store that the LLM config names (`experimental_configs.adapter_store`)."""

    async def load_model_from_config(self, lora_model_id: str, llm_config: Any) -> DiskMultiplexConfig:
        """Fetch the adapter of `<model_id>:<adapter_id>` and say where on this node's disk it lies."""
        if lora_model_id not in self.disk_cache:
            where = llm_config.experimental_configs["adapter_store"]
            adapter_id = lora_model_id.partition(":")[2]
            folder = await asyncio.to_thread(_fetch, where, adapter_id)
            self.disk_cache[lora_model_id] = DiskMultiplexConfig(
                model_id=lora_model_id,
                max_total_tokens=None,
                local_path=str(folder),
                lora_assigned_int_id=global_id_manager.next(),
            )
        return self.disk_cache[lora_model_id]


def _fetch(where: dict[str, str], adapter_id: str) -> Path:
    return fetch_adapter(open_store(where["uri"]), adapter_id, Path(where["cache"]))


class OneProcessEngine(VLLMEngine):  # type: ignore[misc]
    """An engine whose only worker lives in the engine's own process, on CPUs and where the replica has its GPU itself.

    Ray asks for vLLM's multiprocess executor on CPUs, which starts one process more, to set the OpenMP variables for
    it. Here the engine's process gets them, and starting is shorter by the other's imports. On a GPU, see
    `serve_engine.has_gpu_itself`.
    """

    def _prepare_engine_config(self, callback_ctx: Any) -> tuple[Any, Any, Any]:
        """Ray's own asks a task that sees the GPU, in a process of its own; a replica that has it can look itself."""
        if not ray.get_runtime_context().get_accelerator_ids().get("GPU"):
            return super()._prepare_engine_config(callback_ctx)  # type: ignore[no-any-return]
        said, vllm_models.EXECUTOR_BACKEND_RAY = vllm_models.EXECUTOR_BACKEND_RAY, "uni"
        try:
            engine_args, engine_config = vllm_engine._get_vllm_engine_config(self.llm_config)
        finally:
            vllm_models.EXECUTOR_BACKEND_RAY = said
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


@serve.ingress()
class AdapterServer(LLMServer):  # type: ignore[misc]
    """Ray's LLM server with adapters from the artifact store and the OpenAI API."""

    _default_engine_cls = OneProcessEngine

    async def __init__(self, llm_config: dict[str, Any], front: Callable[[], Front]) -> None:  # type: ignore[misc]  # as Ray's own
        """llm_config: of `stages.engines.vllm.server.llm_config`. front: makes what stands before the API."""
        _listen_on_loopback()
        self._loading = asyncio.Lock()
        self._loaded: dict[str, None] = {}  # names of adapters, the longest unused first
        self._pacer: Pacer[Any] = Pacer()
        config = LLMConfig(**llm_config)
        self._api = OpenAIApi(self, config, front())
        await super().__init__(config)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Serve calls this at the start, and when a deploy changes nothing that the replica is made of."""
        self._api.configure(user_config)

    async def __serve_build_asgi_app__(self) -> FastAPI:
        """Serve calls this when the replica has started, for what it answers by HTTP."""
        return self._api.app()

    async def start(self) -> None:
        """Start the engine. What makes its process fail is told by that process only in this one's log file."""
        try:
            await super().start()
        except RuntimeError as error:
            cause = root_cause(_end_of_log()) if ENGINE_FAILED in str(error) else ""
            if not cause:
                raise
            raise RuntimeError(f"The engine did not start. {cause}") from error
        self._watch = asyncio.create_task(_end_with_engine(self.engine._engine_client))

    async def _start_engine(self) -> None:
        """Start the engine. Where usage reports are off, do not start Ray's actor for them and wait for it (4 s)."""
        if usage_stats_enabled():
            await super()._start_engine()
        else:
            await self.engine.start()

    async def answer_piece(self, piece: dict[str, Any], work: Work) -> list[dict[str, Any]]:
        """Batch inference on this engine, by a call of this actor: the results of a piece of the work."""
        try:
            return await answer_piece(self.engine._engine_client, self._lora, piece, work)
        except EngineDeadError:
            await asyncio.Event().wait()  # for `_end_with_engine`: the caller learns that this replica is dead
            raise

    def engine_config(self) -> EngineConfig:
        """What the engine compiles schemas and grammars by."""
        config = self.engine._engine_client.vllm_config
        return EngineConfig(config.model_config, config.structured_outputs_config)

    def has_place_for(self, model: str) -> bool:
        """Whether this replica can answer for the model without giving up an adapter for it."""
        multiplex = self._llm_config.multiplex_config()
        if ":" not in model or multiplex is None or model in self._loaded or RAY_SERVE_ENABLE_DIRECT_INGRESS:
            return True
        return len(self._loaded) < int(multiplex.max_num_models_per_replica)

    async def answer(self, method: str, body: Any, info: Any, model: str) -> AsyncGenerator[Any, None]:
        """The model's answers to a request by HTTP, as this class's method of that name gives them."""
        adapter = model if ":" in model else ""  # and not what the client may have put in Serve's header for it
        context = dataclasses.replace(serve_context._get_serve_request_context(), multiplexed_model_id=adapter)
        serve_context._serve_request_context.set(context)
        answers: AsyncGenerator[Any, None] = await getattr(self, method)(body, info)
        return answers

    async def _maybe_resolve_lora_from_multiplex(self) -> None:
        """Load the adapter that a request asks for."""
        if name := serve.get_multiplexed_model_id():
            await self._lora(name)

    def _batch_output_stream(self, generator: AsyncGenerator[Any, None]) -> AsyncGenerator[list[Any], None]:
        """Ray's own waits up to 50 ms for every message, the first included, or sends each token by itself."""
        return self._pacer.batches(generator)

    async def _lora(self, name: str) -> Any:
        """The LoRARequest of an adapter. They are loaded one at a time: vLLM refuses one that is there or coming."""
        async with self._loading:
            await self.engine.resolve_lora(await self._load_model(name))
            self._loaded.pop(name, None)
            self._loaded[name] = None
            while len(self._loaded) > self._llm_config.multiplex_config().max_num_models_per_replica:
                del self._loaded[next(iter(self._loaded))]
        return self.engine._oai_models.lora_requests[name]

    def _init_multiplex_loader(self, model_downloader_cls: Any = None) -> None:
        """Ray Serve does not know which replica has which adapter where its HAProxy passes requests on."""
        super()._init_multiplex_loader(model_downloader_cls or StoreLoader)
        if RAY_SERVE_ENABLE_DIRECT_INGRESS and self._llm_config.multiplex_config() is not None:
            self._load_model = partial(StoreLoader().load_model_from_config, llm_config=self._llm_config)


async def _end_with_engine(client: Any) -> None:
    """End this replica's process as soon as its engine is dead.

    Ray Serve then sends requests elsewhere, or has them wait for the next replica. A health check would find out after
    three periods of 10 s, and until then every request that comes here would fail: the sooner they do the more of them,
    since the proxy sends the next one where fewest are under way.
    """
    await engine_end(client)
    logging.getLogger("ray.serve").error("the engine has died; this replica ends with it")
    os._exit(1)


def _end_of_log() -> str:
    """The end of what this process and its children have written to stderr, which Ray keeps in a file."""
    path = Path(global_worker.get_err_file_path())
    return path.read_bytes()[-_LOG_BYTES:].decode(errors="replace") if path.is_file() else ""


class LocalModel(CallbackBase):  # type: ignore[misc]
    """The model is a folder that every node sees: skip Ray's download step and the process that it imports vLLM in."""

    async def on_before_node_init(self) -> None:
        self.ctx.run_init_node = False


class RequestError(OpenAIHTTPException):  # type: ignore[misc]
    """What vLLM says of a request, with the parameter that it names."""

    def __init__(self, error: ErrorInfo) -> None:
        super().__init__(error.code, error.message, error.type)
        self.param = error.param


def _status_of(error: Exception, request_id: str) -> int:
    """The HTTP status of an exception, which Ray's function logs as well."""
    status: int = get_response_for_error(error, request_id).error.code
    return status


class OpenAIApi(OpenAiIngress):  # type: ignore[misc]
    """OpenAI's endpoints, which know the adapters in the store: they are listed, and any other name is a 404.

    Adapters come to the replicas that are asked for them. Once a replica holds as many as it may
    (`serve.max_adapters_per_replica`), it passes requests for another on to a replica that has it.
    """

    def __init__(self, server: AdapterServer, llm_config: LLMConfig, front: Front) -> None:
        here, model_id = serve.get_replica_context(), llm_config.model_id
        replicas = serve.get_deployment_handle(here.deployment, here.app_name)
        super().__init__({model_id: replicas}, {model_id: to_model_metadata(model_id, llm_config)})
        self._server = server
        self._front = front
        self._only: list[str] | None = None
        self._recent = Recent()
        store = llm_config.experimental_configs.get("adapter_store")
        self._store = open_store(store["uri"]) if store else None

    def configure(self, user_config: dict[str, Any]) -> None:
        """Take other settings.

        `only`: ids of the adapters to know; None knows all that are in the store. `guard`: for the front.
        """
        self._front.configure(user_config["guard"])
        self._only = user_config["only"]

    def app(self) -> FastAPI:
        """The endpoints as an application."""
        app = init()
        for name, route in DEFAULT_ENDPOINTS.items():
            route(app)(getattr(self, name))
        workers = [Worker(self._server.engine_config) for _ in range(NUM_WORKERS)]
        check = GrammarCheck(workers, logging.getLogger("ray.serve"))
        return self._front.wrap(app, _status_of, check)  # type: ignore[no-any-return]

    async def _missing(self, model_id: str) -> str:
        """Why there is no such model, or ""."""
        base, colon, adapter_id = model_id.partition(":")
        if base not in self._model_cards:
            return f"The model {model_id[:200]!r} does not exist."
        if not colon:
            return ""
        try:
            if self._store is None:
                raise AdapterNotFoundError("this endpoint serves the base model alone")
            if self._only is not None and adapter_id not in self._only:
                raise AdapterNotFoundError("it is none of the adapters that this endpoint serves")
            if adapter_id not in self._recent:
                await asyncio.to_thread(find_adapter, self._store, adapter_id)
                self._recent.add(adapter_id)
        except AdapterNotFoundError as error:
            return f"The model {model_id[:200]!r} does not exist: {error}."
        return ""

    async def _get_model_id(self, model: str | None) -> str:
        model_id: str = await super()._get_model_id(model)
        if missing := await self._missing(model_id):
            raise OpenAIHTTPException(404, missing, "NotFoundError")
        return model_id

    async def _get_response(
        self, *, body: Any, call_method: str, raw_request: Request | None = None
    ) -> AsyncGenerator[Any, None]:
        model = await self._get_model_id(body.model)
        if self._server.has_place_for(model):
            info = RawRequestInfo.from_starlette_request(raw_request) if raw_request is not None else None
            answers = await self._server.answer(call_method, body, info, model)
        else:
            answers = super()._get_response(body=body, call_method=call_method, raw_request=raw_request)
        async with aclosing(answers):
            async for answer in answers:
                if isinstance(answer, ErrorResponse):
                    raise RequestError(answer.error)
                yield answer

    async def _process_llm_request(self, body: Any, call_method: str, raw_request: Request | None = None) -> Response:
        self._front.complete(body)
        if body.model and (missing := await self._missing(body.model)):
            return _not_found(missing)
        response: Response = await super()._process_llm_request(body, call_method, raw_request)
        return response

    async def model(self, model_id: str) -> ModelCard | None:
        """The card of the base model or of an adapter in the store; None when there is no such model."""
        return None if await self._missing(model_id) else self._card(model_id)

    async def model_data(self, model: str) -> ModelCard:
        """OpenAI's single model, by its name as it is (Ray's own turns '--' into '/')."""
        if missing := await self._missing(model):
            return _not_found(missing)
        return self._card(model)

    async def models(self) -> ModelList:
        """OpenAI's list of models: the base model, then every complete adapter in the store."""
        adapters = await asyncio.to_thread(list_adapters, self._store) if self._store else []
        adapters = [each for each in adapters if self._only is None or each in self._only]
        names = [
            name for base in self._model_cards for name in (base, *(adapter_name(base, each) for each in adapters))
        ]
        return ModelList(data=[self._card(name) for name in names])

    def _card(self, model_id: str) -> ModelCard:
        base = model_id.partition(":")[0]
        card: ModelCard = self._model_cards[base]
        return card.model_copy(
            update={"id": model_id, "metadata": {**card.metadata, "model_id": model_id, "base_model_id": base}}
        )


def _not_found(message: str) -> JSONResponse:
    """The body that OpenAI's clients take a message from."""
    error = {"message": message, "type": "invalid_request_error", "param": "model", "code": "model_not_found"}
    return JSONResponse({"error": error}, status_code=404)
