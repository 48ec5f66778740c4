"""Counts that follow from a model's architecture: parameters, LoRA parameters, bytes of the KV cache.

The figures come from config.json or from `model.architecture`. Only decoders whose layers are known here are counted;
of any other kind nothing is estimated.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from runner.storage.small import read_small
from stages.sections.model import Architecture

"""Bytes by what they are for."""
DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "half": 2, "float32": 4, "float": 4}
KINDS = get_args(Architecture.model_fields["model_type"].annotation)
_SAFETENSORS_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I8": 1, "U8": 1, "F8_E4M3": 1}
_MOST_HEADER_BYTES = 100 << 20  # the limit of the safetensors library itself


def read_architecture(folder: Path) -> Architecture | str:
    """What the folder's config.json says, or why it says nothing that can be counted with."""
    path = folder / "config.json"
    try:
        values = json.loads(read_small(path))
        kind = values.get("model_type")
        if kind not in KINDS:
            return f"layers of model_type {kind!r} are not known here (known: {', '.join(KINDS)})"
        named = {name: values[name] for name in Architecture.model_fields if values.get(name) is not None}
        heads = named.get("num_attention_heads")
        dtype = values.get("dtype") or values.get("torch_dtype") or "float32"
        filled = {"num_key_value_heads": heads, **named, "of": str(folder), "dtype": dtype}
        return Architecture.model_validate(filled)
    except (OSError, ValueError, AttributeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else str(error)
        return f"{path} cannot be used: {why}"


def stored_weights(folder: Path) -> tuple[int, int] | None:
    """(parameters, bytes) of the folder's safetensors files by their headers, whatever the architecture; None without.

    Format: eight bytes with the header's length, then the header as JSON (https://github.com/huggingface/safetensors).
    """
    num_params = size_bytes = 0
    files = sorted(folder.glob("*.safetensors"))
    for path in files:
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                if length > _MOST_HEADER_BYTES:
                    return None
                header: dict[str, Any] = json.loads(file.read(length))
            tensors = [entry for name, entry in header.items() if name != "__metadata__"]
            for tensor in tensors:
                begin, end = tensor["data_offsets"]
                num_params += (end - begin) // _SAFETENSORS_BYTES[tensor["dtype"]]
                size_bytes += end - begin
        except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
            return None  # not whole, or of a type whose elements are packed
    return (num_params, size_bytes) if files else None


def head_dim(model: Architecture) -> int:
    return model.head_dim or model.hidden_size // model.num_attention_heads


def linear_shapes(model: Architecture) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of each linear module of a layer, as transformers names them."""
    hidden, inner = model.hidden_size, model.intermediate_size
    queries, keys = model.num_attention_heads * head_dim(model), model.num_key_value_heads * head_dim(model)
    return {
        "q_proj": (hidden, queries),
        "k_proj": (hidden, keys),
        "v_proj": (hidden, keys),
        "o_proj": (queries, hidden),
        "gate_proj": (hidden, inner),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
    }


def num_params(model: Architecture) -> int:
    """All parameters: embedding, output layer unless it is tied to it, linear modules with biases, and norms.

    Per `modeling_llama.py`, `modeling_qwen2.py` (bias in q, k and v) and `modeling_qwen3.py` (norms of queries and
    keys) of transformers: Qwen2.5-7B has 7,615,616,512, SmolLM2-135M 134,515,008.
    """
    shapes = linear_shapes(model)
    layer = sum(inputs * outputs for inputs, outputs in shapes.values()) + 2 * model.hidden_size
    biased = ["q_proj", "k_proj", "v_proj"] if model.model_type == "qwen2" else []
    if model.attention_bias:
        biased = ["q_proj", "k_proj", "v_proj", "o_proj"]
    layer += sum(shapes[name][1] for name in biased)
    if model.model_type == "qwen3":
        layer += 2 * head_dim(model)
    embeddings = model.vocab_size * model.hidden_size * (1 if model.tie_word_embeddings else 2)
    return embeddings + model.num_hidden_layers * layer + model.hidden_size


def lora_params(model: Architecture, rank: int, target: str = "all") -> int | None:
    """Parameters of LoRA matrices of that rank: rank * (inputs + outputs) for each adapted module (Hu et al. 2021).

    target: as `train.lora_target`. None when it names modules that a layer has not.
    """
    shapes = linear_shapes(model)
    names = list(shapes) if target == "all" else [name.strip() for name in target.split(",")]
    if not set(names) <= set(shapes):
        return None
    return model.num_hidden_layers * sum(rank * sum(shapes[name]) for name in names)


def kv_bytes_per_token(model: Architecture, dtype_bytes: int) -> int:
    """A token's keys and values: 2 * layers * KV heads * head width * bytes of an element (Kwon et al. 2023)."""
    return 2 * model.num_hidden_layers * model.num_key_value_heads * head_dim(model) * dtype_bytes
