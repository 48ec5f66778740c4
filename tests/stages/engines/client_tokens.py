"""Writes `client.json` into folders with a recipe and test rows: the token ids that vLLM's chat endpoint makes of what
the openai client would send for each row. Runs in the engine's environment."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from stages.data.example import Example, read_examples
from stages.query.stage import request_of
from stages.sections.recipe import Recipe
from tests.stages.engines.endpoint_renderer import endpoint_renderer


def asked_by_client(recipe: Recipe, rows: list[Example]) -> list[list[int]]:
    """Token ids of each row's request."""
    from vllm.config import ModelConfig
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.renderers.online_renderer import OnlineRenderer

    folder = recipe.model.source
    model = ModelConfig(model=folder, tokenizer=folder, dtype="float32", max_model_len=2048)
    endpoint = OnlineRenderer(
        model,
        endpoint_renderer(model),
        request_logger=None,
        chat_template=None,
        chat_template_content_format="auto",
    )

    async def render(row: Example) -> list[int]:
        sent = {key: value for key, value in request_of(recipe, row).items() if key not in ("timeout", "extra_body")}
        made = await endpoint.render_chat(ChatCompletionRequest(model="base", **sent))
        assert isinstance(made, tuple), made
        return list(made[1][0]["prompt_token_ids"])

    async def every() -> list[list[int]]:
        return [await render(row) for row in rows]

    return asyncio.run(every())


if __name__ == "__main__":
    for folder in map(Path, sys.argv[1:]):
        recipe = Recipe.model_validate_json((folder / "recipe.json").read_text())
        rows = list(read_examples(folder / "test_set" / "test.jsonl"))
        (folder / "client.json").write_text(json.dumps(asked_by_client(recipe, rows)))
