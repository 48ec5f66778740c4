"""Ray Serve's OpenAI API as a base class for the API of each replica, and its models of what is answered.

Imports vLLM and Ray Serve's LLM library: only a replica imports this module.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.llm._internal.serve.core.configs.llm_config import LLMConfig
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
from ray.llm._internal.serve.utils.server_utils import get_response_for_error
from ray.serve.llm.ingress import OpenAiIngress
from starlette.requests import Request
from starlette.responses import Response

__all__ = ["ModelCard", "ModelList", "ReplicaApi", "RequestError", "status_of"]


class RequestError(OpenAIHTTPException):  # type: ignore[misc]
    """What vLLM says of a request, with the parameter that it names."""

    def __init__(self, error: ErrorInfo) -> None:
        super().__init__(error.code, error.message, error.type)
        self.param = error.param


def status_of(error: Exception, request_id: str) -> int:
    """The HTTP status of an exception, which Ray's function logs as well."""
    status: int = get_response_for_error(error, request_id).error.code
    return status


class ReplicaApi(OpenAiIngress):  # type: ignore[misc]
    """OpenAI's endpoints of one model in its own replica; a subclass says which models there are, and answers."""

    def __init__(self, llm_config: LLMConfig) -> None:
        here, model_id = serve.get_replica_context(), llm_config.model_id
        replicas = serve.get_deployment_handle(here.deployment, here.app_name)
        super().__init__({model_id: replicas}, {model_id: to_model_metadata(model_id, llm_config)})

    @abstractmethod
    async def missing(self, model_id: str) -> str:
        """Why there is no such model, or ""."""

    @abstractmethod
    async def refuse(self, body: Any) -> Response | None:
        """The response to a request that is not to be answered; None for any other."""

    @abstractmethod
    async def answers(
        self, model: str, method: str, body: Any, info: Callable[[], Any]
    ) -> AsyncGenerator[Any, None] | None:
        """This process's answers to a request; None to have Serve choose a replica.

        method: of the LLM server. info: gives what the server wants to know of the HTTP request, None without one.
        """

    @property
    def model_cards(self) -> dict[str, ModelCard]:
        """The base model's card, by its name."""
        return self._model_cards  # type: ignore[no-any-return]

    def endpoints(self) -> FastAPI:
        """The endpoints as an application."""
        app: FastAPI = init()
        for name, route in DEFAULT_ENDPOINTS.items():
            route(app)(getattr(self, name))
        return app

    async def _get_model_id(self, model: str | None) -> str:
        model_id: str = await super()._get_model_id(model)
        if missing := await self.missing(model_id):
            raise OpenAIHTTPException(404, missing, "NotFoundError")
        return model_id

    async def _get_response(
        self, *, body: Any, call_method: str, raw_request: Request | None = None
    ) -> AsyncGenerator[Any, None]:
        def info() -> Any:
            return RawRequestInfo.from_starlette_request(raw_request) if raw_request is not None else None

        model = await self._get_model_id(body.model)
        answers = await self.answers(model, call_method, body, info)
        if answers is None:
            answers = super()._get_response(body=body, call_method=call_method, raw_request=raw_request)
        async with aclosing(answers):
            async for answer in answers:
                if isinstance(answer, ErrorResponse):
                    raise RequestError(answer.error)
                yield answer

    async def _process_llm_request(self, body: Any, call_method: str, raw_request: Request | None = None) -> Response:
        if (refusal := await self.refuse(body)) is not None:
            return refusal
        response: Response = await super()._process_llm_request(body, call_method, raw_request)
        return response
