"""vLLM's renderer of chats with another way to apply the chat template, and with word of its end.

vLLM applies the template in a thread of the API's process, without limits, and says to nobody when it has decoded and
resized a request's images.
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


def after_input(engine_client: Any, call: Callable[[], None]) -> None:
    """Have the function called when the engine's input of a chat request is made, in that request's context."""
    renderer = engine_client.renderer
    render = renderer.render_chat_async

    async def rendered(*args: Any, **kwargs: Any) -> Any:
        made = await render(*args, **kwargs)
        call()
        return made

    renderer.render_chat_async = rendered
