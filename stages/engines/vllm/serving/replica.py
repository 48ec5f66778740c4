"""What runs inside Ray Serve: the LLM server, its adapter loading, and the OpenAI API of each replica.

Ray Serve LLM has a deployment of its own for the API, which passes every request, and every token of an answer, on to
a replica of the model by a call from process to process. Here a replica answers for itself, as vLLM's server does.

Imports Ray Serve and vLLM (seconds): import this module inside functions only.

Ray's own adapter loading takes object stores only, loads whatever lies under a prefix, and keeps what it downloaded
by name. Here adapters come from any artifact store, complete and verified, and are kept by digest.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve
from starlette.responses import JSONResponse, Response
from vllm.v1.engine.exceptions import EngineDeadError

from runner.patches import ray_node, ray_serve
from runner.storage.store import open_store
from stages.engines.input_made import input_is_made
from stages.engines.root_cause import only_points, root_cause
from stages.engines.vllm.sampling.effect import Engine
from stages.engines.vllm.sampling.values import wrong_values
from stages.engines.vllm.serving import chat_worker, grammar_check, grammar_worker
from stages.engines.vllm.serving.chat_worker import Rendering
from stages.engines.vllm.serving.grammar_check import GrammarCheck
from stages.engines.vllm.serving.grammar_worker import EngineConfig
from stages.engines.vllm.serving.pacing import Pacer
from stages.engines.vllm.serving.pieces import answer_piece
from stages.engines.vllm.serving.side_process import Worker, Workers
from stages.engines.work import Front, Work
from stages.models.adapter import AdapterNotFoundError, Catalogue, Recent, adapter_name, fetch_adapter, find_adapter
from stages.models.chat.end_of_turn import Stop, with_stop
from stages.models.chat_template import ChatTemplate
from stages.patches.ray_llm_api import ModelCard, ModelList, ReplicaApi, status_of
from stages.patches.ray_llm_server import AdapterLoader, LLMConfig, ReplicaServer, StartCallback
from stages.patches.vllm_process import engine_end
from stages.patches.vllm_renderer import after_input, render_by

_LOG_BYTES = 256 << 10


class StoreLoader(AdapterLoader):
    """Loads an adapter from the store that the LLM config names (`experimental_configs.adapter_store`)."""

    def fetch(self, where: dict[str, str], adapter_id: str) -> Path:
        return fetch_adapter(open_store(where["uri"]), adapter_id, Path(where["cache"]), where["base_model"])


@serve.ingress()
class AdapterServer(ReplicaServer):
    """Ray's LLM server with adapters from the artifact store and the OpenAI API."""

    loader = StoreLoader

    async def __init__(self, llm_config: dict[str, Any], front: Callable[[], Front]) -> None:  # type: ignore[misc]  # as Ray's own
        """llm_config: of `stages.engines.vllm.serving.server.llm_config`. front: makes what stands before the API."""
        ray_serve.listen_on_loopback()
        self._loading = asyncio.Lock()
        self._loaded: dict[str, None] = {}  # names of adapters, the longest unused first
        self._pacer: Pacer[Any] = Pacer()
        self._stop = Stop()
        self._rendering = Rendering(
            Workers(Worker(chat_worker.run, self._model) for _ in range(chat_worker.NUM_WORKERS))
        )
        config = LLMConfig(**llm_config)
        self._api = OpenAIApi(self, config, front())
        await super().__init__(config)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Serve calls this at the start, and when a deploy changes nothing that the replica is made of."""
        self._api.configure(user_config)
        self._rendering.timeout_s = user_config["guard"]["limits"]["template_timeout_s"]

    async def __serve_build_asgi_app__(self) -> FastAPI:
        """Serve calls this when the replica has started, for what it answers by HTTP."""
        return self._api.app()

    async def start(self) -> None:
        """Start the engine. What makes its process fail is told by that process only in this one's log file."""
        try:
            await super().start()
        except RuntimeError as error:
            cause = root_cause(_end_of_log()) if only_points(str(error)) else ""
            if not cause:
                raise
            raise RuntimeError(f"The engine did not start. {cause}") from error
        self._stop = await asyncio.to_thread(lambda: self.chat_template().stop)
        self._watch = asyncio.create_task(_end_with_engine(self.engine_client))
        after_input(self.engine_client, input_is_made)
        if render_by(self.engine_client, self._rendering):
            self._rendering_begins = asyncio.create_task(self._rendering.begin())

    def chat_template(self) -> ChatTemplate:
        """The chat template of requests, with the engine's tokenizer."""
        given = self.engine_arguments
        kwargs = given.get("default_chat_template_kwargs")
        in_parts = given.get("chat_template_content_format") == "openai"
        return ChatTemplate(self.engine_client.get_tokenizer(), given.get("chat_template"), kwargs, in_parts=in_parts)

    def complete(self, body: Any) -> None:
        """Have the answer to a parsed chat request end where the chat template ends a turn, as in batch inference."""
        if hasattr(body, "messages") and hasattr(body, "stop_token_ids"):
            own = {"stop": body.stop, "stop_token_ids": body.stop_token_ids}
            for name, value in with_stop(own, self._stop).items():
                setattr(body, name, value)

    async def answer_piece(self, piece: dict[str, Any], work: Work) -> list[dict[str, Any]]:
        """Batch inference on this engine, by a call of this actor: the results of a piece of the work."""
        try:
            return await answer_piece(self.engine_client, self.adapter, piece, work)
        except EngineDeadError:
            await asyncio.Event().wait()  # for `_end_with_engine`: the caller learns that this replica is dead
            raise

    def engine_config(self) -> EngineConfig:
        """What the engine compiles schemas and grammars by."""
        config = self.engine_client.vllm_config
        return EngineConfig(config.model_config, config.structured_outputs_config)

    def _model(self) -> Any:
        """vLLM's configuration of the model."""
        return self.engine_config().model_config

    def met_by_requests(self) -> Engine:
        """What decides which parameters of a request have an effect."""
        given = self.engine_arguments
        return Engine(given, self.chat_template().variables, own_end=self._stop == Stop())

    def has_place_for(self, model: str) -> bool:
        """Whether this replica can answer for the model without giving up an adapter for it."""
        most = self.max_adapters
        if ":" not in model or most is None or model in self._loaded or ray_serve.answers_http_itself():
            return True
        return len(self._loaded) < most

    async def answer(self, method: str, body: Any, info: Any, model: str) -> AsyncGenerator[Any, None]:
        """The model's answers to a request by HTTP, as this class's method of that name gives them."""
        adapter = model if ":" in model else ""  # and not what the client may have put in Serve's header for it
        ray_serve.set_multiplexed_model(adapter)
        answers: AsyncGenerator[Any, None] = await getattr(self, method)(body, info)
        return answers

    def batches(self, items: AsyncGenerator[Any, None]) -> AsyncGenerator[list[Any], None]:
        """Ray's own waits up to 50 ms for every message, the first included, or sends each token by itself."""
        return self._pacer.batches(items)

    async def adapter(self, name: str) -> Any:
        """The LoRARequest of an adapter. They are loaded one at a time: vLLM refuses one that is there or coming."""
        async with self._loading:
            await self.load_adapter(name)
            self._loaded.pop(name, None)
            self._loaded[name] = None
            while self.max_adapters is not None and len(self._loaded) > self.max_adapters:
                del self._loaded[next(iter(self._loaded))]
        return self.lora_request(name)


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
    path = ray_node.own_stderr()
    return path.read_bytes()[-_LOG_BYTES:].decode(errors="replace") if path.is_file() else ""


class LocalModel(StartCallback):  # type: ignore[misc]
    """The model is a folder that every node sees: skip Ray's download step and the process that it imports vLLM in."""

    async def on_before_node_init(self) -> None:
        self.ctx.run_init_node = False


class OpenAIApi(ReplicaApi):
    """OpenAI's endpoints, which know the adapters in the store: they are listed, and any other name is a 404.

    Adapters come to the replicas that are asked for them. Once a replica holds as many as it may
    (`serve.max_adapters_per_replica`), it passes requests for another on to a replica that has it.
    """

    def __init__(self, server: AdapterServer, llm_config: LLMConfig, front: Front) -> None:
        super().__init__(llm_config)
        self._server = server
        self._front = front
        self._only: list[str] | None = None
        self._recent = Recent()
        store = llm_config.experimental_configs.get("adapter_store")
        self._store = open_store(store["uri"]) if store else None
        self._base_model = store["base_model"] if store else None
        self._catalogue = Catalogue(self._store, self._base_model) if self._store else None

    def configure(self, user_config: dict[str, Any]) -> None:
        """Take other settings.

        `only`: ids of the adapters to know; None knows all that are in the store. `guard`: for the front.
        """
        self._front.configure(user_config["guard"])
        self._only = user_config["only"]

    def app(self) -> FastAPI:
        """The endpoints as an application."""
        workers = [Worker(grammar_worker.run, self._server.engine_config) for _ in range(grammar_check.NUM_WORKERS)]
        check = GrammarCheck(Workers(workers), logging.getLogger("ray.serve"))
        wrong = partial(wrong_values, engine=self._server.met_by_requests())
        return self._front.wrap(self.endpoints(), status_of, check, wrong)  # type: ignore[no-any-return]

    async def missing(self, model_id: str) -> str:
        """Why there is no such model, or ""."""
        base, colon, adapter_id = model_id.partition(":")
        if base not in self.model_cards:
            return f"The model {model_id[:200]!r} does not exist."
        if not colon:
            return ""
        try:
            if self._store is None:
                raise AdapterNotFoundError("this endpoint serves the base model alone")
            if self._only is not None and adapter_id not in self._only:
                raise AdapterNotFoundError("it is none of the adapters that this endpoint serves")
            if adapter_id not in self._recent:
                await asyncio.to_thread(find_adapter, self._store, adapter_id, self._base_model)
                self._recent.add(adapter_id)
        except AdapterNotFoundError as error:
            return f"The model {model_id[:200]!r} does not exist: {error}."
        return ""

    async def answers(
        self, model: str, method: str, body: Any, info: Callable[[], Any]
    ) -> AsyncGenerator[Any, None] | None:
        """This replica's answers; None when another is to answer."""
        if not self._server.has_place_for(model):
            return None
        return await self._server.answer(method, body, info(), model)

    async def refuse(self, body: Any) -> Response | None:
        """The response to a request for a model that there is not. Limits that the request leaves open are set."""
        self._front.complete(body)
        self._server.complete(body)
        missing = await self.missing(body.model) if body.model else ""
        return _not_found(missing) if missing else None

    async def model(self, model_id: str) -> ModelCard | None:
        """The card of the base model or of an adapter in the store; None when there is no such model."""
        return None if await self.missing(model_id) else self._card(model_id)

    async def model_data(self, model: str) -> ModelCard:
        """OpenAI's single model, by its name as it is (Ray's own turns '--' into '/')."""
        if missing := await self.missing(model):
            return _not_found(missing)
        return self._card(model)

    async def models(self) -> ModelList:
        """OpenAI's list of models: the base model, then every adapter in the store that can be asked for."""
        adapters = await asyncio.to_thread(self._catalogue.ids) if self._catalogue else []
        adapters = [each for each in adapters if self._only is None or each in self._only]
        names = [name for base in self.model_cards for name in (base, *(adapter_name(base, each) for each in adapters))]
        return ModelList(data=[self._card(name) for name in names])

    def _card(self, model_id: str) -> ModelCard:
        base = model_id.partition(":")[0]
        card: ModelCard = self.model_cards[base]
        return card.model_copy(
            update={"id": model_id, "metadata": {**card.metadata, "model_id": model_id, "base_model_id": base}}
        )


def _not_found(message: str) -> JSONResponse:
    """The body that OpenAI's clients take a message from."""
    error = {"message": message, "type": "invalid_request_error", "param": "model", "code": "model_not_found"}
    return JSONResponse({"error": error}, status_code=404)
