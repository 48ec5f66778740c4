"""vLLM's renderer of chats with another way to apply the chat template.

vLLM applies it in a thread of the API's process, without limits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any


def render_by(engine_client: Any, render: Callable[..., Awaitable[Any]]) -> bool:
    """Have chat templates applied by `render(conversation, **kwargs)`. Returns False where the model's messages are
    not rendered by a template, but by vLLM's own code."""
    from vllm.renderers.hf import HfRenderer

    renderer = engine_client.renderer
    if not isinstance(renderer, HfRenderer):
        return False

    async def apply(model_config: Any, tokenizer: Any, conversation: Any, **kwargs: Any) -> Any:
        return await render(conversation, **kwargs)

    assert callable(renderer._apply_chat_template_async)
    renderer._apply_chat_template_async = apply
    return True
