"""vLLM's renderer of chats as the endpoint's replica has it, without the replica. For the engine's environment."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from stages.engines.vllm.serving.chat_worker import prompt_of
from stages.patches.vllm_renderer import render_by


def endpoint_renderer(model: Any) -> Any:
    """The renderer of a vLLM ModelConfig, which applies the chat template as the replica's processes do."""
    from vllm.config import VllmConfig
    from vllm.renderers import renderer_from_config

    renderer = renderer_from_config(VllmConfig(model_config=model))

    async def render(conversation: Any, **kwargs: Any) -> str | list[int]:
        return prompt_of(model, renderer.get_tokenizer(), conversation, **kwargs)

    assert render_by(SimpleNamespace(renderer=renderer), render)
    return renderer
