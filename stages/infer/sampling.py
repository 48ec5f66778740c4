"""The recipe's sampling parameters as batch inference and as chat requests take them, so that both answer alike.

Both hand them to vLLM's SamplingParams: the batch by its own names, a request through the fields of
vllm.entrypoints.openai.chat_completion.protocol.ChatCompletionRequest.
"""

from __future__ import annotations

import json
from typing import Any

from stages.sections.recipe import Recipe

# vLLM's own values where the recipe says nothing. The server would take the model's generation_config.json instead,
# which batch inference does not read, and base and adapter would answer otherwise than they were evaluated.
_NEUTRAL = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "max_tokens": 16}
# What a request has no field for, or another meaning, and what changes no text.
_NOT_IN_REQUESTS = frozenset(
    {"detokenize", "flat_logprobs", "logprobs", "prompt_logprobs", "routed_experts_prompt_start",
     "skip_reading_prefix_cache", "stream_interval"}
)  # fmt: skip
_OTHER_NAMES = {"extra_args": "vllm_xargs"}


def drawn_by_seed(recipe: Recipe) -> bool:
    """Whether answers are drawn at random by the recipe's seed."""
    return recipe.infer.sampling.get("temperature") != 0 and "seed" not in recipe.infer.sampling


def sampling_params(recipe: Recipe) -> dict[str, Any]:
    """As `ray.data.llm` takes them; where tokens are drawn at random, by the recipe's seed unless they name one.

    A JSON schema becomes text: Ray Data would turn its lists into arrays and cannot keep an empty mapping.
    """
    sampling = dict(recipe.infer.sampling)
    if drawn_by_seed(recipe):
        sampling["seed"] = recipe.seed
    if isinstance(bias := sampling.get("logit_bias"), dict):
        sampling["logit_bias"] = {int(token): value for token, value in bias.items()}  # JSON made texts of the numbers
    form = sampling.get("structured_outputs")
    if isinstance(form, dict) and isinstance(form.get("json"), dict):
        sampling["structured_outputs"] = form | {"json": json.dumps(form["json"])}
    return sampling


def request_sampling(recipe: Recipe) -> dict[str, Any]:
    """The same as fields of a chat completion request, by their names there."""
    sampling = {**_NEUTRAL, **sampling_params(recipe)}
    return {_OTHER_NAMES.get(name, name): value for name, value in sampling.items() if name not in _NOT_IN_REQUESTS}
