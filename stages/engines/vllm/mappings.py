"""Keys of the recipe whose values go to vLLM, and what it calls them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runner.recipe.arguments import Library
from runner.recipe.arguments.mapped import Mapped, inner
from stages.sections.recipe import Recipe

VLLM = Library("vllm", "vLLM", Path(__file__).with_name("arguments.json"))

# What Transformers, PEFT and command lines call it, what vLLM called it before, and what OpenAI's requests call it.
_OTHER_NAMES = {
    "rank": ("max_lora_rank",),
    "max_length": ("max_tokens",),
    "max_seq_length": ("max_model_len",),
    "max_seq_len": ("max_model_len",),
    "max_new_tokens": ("max_tokens",),
    "do_sample": ("temperature",),
    "num_return_sequences": ("n",),
    "tp": ("tensor_parallel_size",),
    "tp_size": ("tensor_parallel_size",),
    "num_gpus": ("tensor_parallel_size",),
    "gpu_util": ("gpu_memory_utilization",),
    "context_length": ("max_model_len",),
    "ctx_len": ("max_model_len",),
    "torch_dtype": ("dtype",),
    "max_batch_size": ("max_num_seqs",),
    **dict.fromkeys(("guided_json", "guided_regex", "guided_choice", "guided_grammar"), ("structured_outputs",)),
    "guided_decoding": ("structured_outputs",),
    "response_format": ("structured_outputs",),
    "guided_decoding_backend": ("structured_outputs_config",),
    "json_schema": ("json",),
    "choices": ("choice",),
    "ebnf": ("grammar",),
}
_RESERVED = {
    "model": "set model.source",
    "model_weights": "set model.source",
    "tokenizer": "set model.source",
    "hf_config_path": "set model.source",
    "served_model_name": "set serve.model_id",
    "trust_remote_code": "set model.trust_remote_code",
    "revision": "set model.revision",
    "code_revision": "set model.revision",
    "tokenizer_revision": "set model.revision",
    "download_dir": "set storage.cache",
    "enable_lora": "it is on when the pipeline has publish",
    "reasoning_parser": "set model.reasoning_parser",
}
# Options of vLLM's own web server.
_WEB_SERVER = (
    *("uds", "root_path", "middleware", "allow_credentials", "allowed_headers", "allowed_methods", "allowed_origins"),
    *("ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_cert_reqs", "ssl_ciphers", "enable_ssl_refresh"),
)
_FRONTEND_RESERVED = {
    "host": "set serve.host",
    "port": "set serve.port",
    "lora_modules": "the published adapter is served",
    "chat_template": "set model.chat_template",
    "default_chat_template_kwargs": "set model.chat_template_kwargs",
    "chat_template_content_format": "the chat template itself shows whether it reads content as text or as parts",
    "tool_call_parser": "set model.tool_parser",
    "enable_auto_tool_choice": "it is on when model.tool_parser is set",
    "trust_request_chat_template": "requests use model.chat_template, as training does",
    **dict.fromkeys(_WEB_SERVER, "the endpoint is Ray Serve's and does not read it"),
}


def _not_from_infer(recipe: Recipe) -> dict[str, Any]:
    """What the endpoint's engine is given besides the arguments of batch inference, which are checked there."""
    infer = recipe.infer.engine_kwargs
    given = recipe.serve.engine_kwargs.items()
    return {name: value for name, value in given if name not in infer or infer[name] != value}


BATCH_MAPPINGS = (
    Mapped(
        "infer.engine_kwargs",
        "engine argument",
        lambda recipe: recipe.infer.engine_kwargs,
        VLLM,
        ("engine",),
        _RESERVED,
        other_names=_OTHER_NAMES,
    ),
    Mapped(
        "infer.sampling",
        "sampling parameter",
        lambda recipe: recipe.infer.sampling,
        VLLM,
        ("sampling",),
        other_names=_OTHER_NAMES,
    ),
    Mapped(
        "infer.sampling.structured_outputs",
        "structured output option",
        lambda recipe: inner(recipe.infer.sampling, "structured_outputs"),
        VLLM,
        ("structured_outputs",),
        other_names=_OTHER_NAMES,
    ),
    Mapped(
        "infer.sampling.repetition_detection",
        "repetition detection option",
        lambda recipe: inner(recipe.infer.sampling, "repetition_detection"),
        VLLM,
        ("repetition_detection",),
    ),
    Mapped(
        "infer.engine_kwargs.structured_outputs_config",
        "structured output setting",
        lambda recipe: inner(recipe.infer.engine_kwargs, "structured_outputs_config"),
        VLLM,
        ("structured_outputs_config",),
        other_names=_OTHER_NAMES,
    ),
)
SERVER_MAPPINGS = (
    Mapped(
        "serve.engine_kwargs",
        "engine argument",
        lambda recipe: _not_from_infer(recipe),
        VLLM,
        ("engine", "frontend"),
        _RESERVED | _FRONTEND_RESERVED,
        null_drops=True,
        other_names=_OTHER_NAMES,
    ),
    Mapped(
        "serve.engine_kwargs.structured_outputs_config",
        "structured output setting",
        lambda recipe: inner(_not_from_infer(recipe), "structured_outputs_config"),
        VLLM,
        ("structured_outputs_config",),
        other_names=_OTHER_NAMES,
    ),
)
