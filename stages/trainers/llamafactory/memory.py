"""Memory of training, in bytes for one worker, part by part. What cannot be counted is a reason.

Left out: what torch, CUDA and the processes themselves take (a GPU's context and kernels are about 1 GB).
"""

from __future__ import annotations

from runner.pipeline.estimates.figure import Parts
from runner.recipe.schema import Architecture, Recipe
from stages.models.architecture import DTYPE_BYTES, head_dim, lora_params
from stages.trainers.llamafactory.values import argument

_ADAM_BYTES = 8  # two moments in float32 (Rajbhandari et al. 2020, ZeRO, section 3.1)
_TRAINED_BYTES = 4  # LLaMA-Factory keeps what it trains in float32 (model/adapter.py), and so are its gradients
ADAM = ("adamw_torch", "adamw_torch_fused", "adamw_apex_fused")
# Arguments that shard, shrink or offload what is counted here.
_UNCOUNTED = (
    "deepspeed", "fsdp", "quantization_bit", "use_galore", "use_apollo", "use_badam", "use_unsloth", "pure_bf16",
    "packing", "neat_packing", "use_dora", "additional_target", "use_muon", "use_adam_mini",
)  # fmt: skip


def trained_params(recipe: Recipe, model: Architecture, num_params: int) -> int | str:
    """How many parameters training changes, or why that is not known."""
    kind = argument(recipe, "finetuning_type")
    if kind == "full":
        return num_params
    if kind != "lora":
        return f"train.args.finetuning_type={kind} is not counted here"
    target = recipe.train.lora_target
    if (count := lora_params(model, recipe.train.lora_rank, target)) is None:
        return f"a layer of {model.model_type} has no modules {target}"
    return count


def checkpoint_bytes(recipe: Recipe, trained: int) -> int | str:
    """Bytes of one of the trainer's checkpoints: what is trained and Adam's two moments of it, all in float32."""
    optimizer = argument(recipe, "optim")
    if optimizer not in ADAM:
        return f"the states of train.args.optim={optimizer} are not counted here"
    states = 0 if argument(recipe, "save_only_model") else _ADAM_BYTES
    return trained * (_TRAINED_BYTES + states)


def train_memory(recipe: Recipe, model: Architecture, num_params: int) -> Parts | str:
    """Weights, LoRA, gradients, optimizer and activations of one training worker, or why they are not known.

    Under LoRA the frozen weights are as they are stored (LLaMA-Factory's `load_model` asks for "auto"), in full
    training in float32. Activations: two bytes with `bf16`/`fp16` or on a GPU. On CPUs four: without autocast the
    inputs of LoRA's matrices are kept in float32.
    """
    for name in _UNCOUNTED:
        if argument(recipe, name):
            return f"with train.args.{name} it is not counted here"
    if recipe.train.stage not in ("sft", "pt"):
        return f"train.stage={recipe.train.stage} holds more than one model or row at a time"
    trained = trained_params(recipe, model, num_params)
    if isinstance(trained, str):
        return trained
    optimizer = argument(recipe, "optim")
    if optimizer not in ADAM:
        return f"the states of train.args.optim={optimizer} are not counted here"
    half = argument(recipe, "bf16") or argument(recipe, "fp16") or recipe.cluster.accelerator == "gpu"
    computing = 2 if half else 4
    full = argument(recipe, "finetuning_type") == "full"
    parts = {"weights": num_params * (_TRAINED_BYTES if full else DTYPE_BYTES[model.dtype])}
    if not full:
        parts["LoRA"] = trained * _TRAINED_BYTES
    parts |= {"gradients": trained * _TRAINED_BYTES, "optimizer": trained * _ADAM_BYTES}
    tokens, length = batch_tokens(recipe)
    checkpointed = not argument(recipe, "disable_gradient_checkpointing")
    eager = argument(recipe, "flash_attn") == "disabled"
    parts["activations"] = activation_bytes(model, tokens, length, computing, eager=eager, checkpointed=checkpointed)
    if not argument(recipe, "enable_liger_kernel"):
        parts["logits"] = logit_bytes(model, tokens)
    return parts


def batch_tokens(recipe: Recipe) -> tuple[int, int]:
    """The most tokens of a training batch on one worker, and of one row."""
    length = int(argument(recipe, "cutoff_len"))
    return int(argument(recipe, "per_device_train_batch_size")) * length, length


def activation_bytes(
    model: Architecture, tokens: int, length: int, dtype_bytes: int, *, eager: bool, checkpointed: bool
) -> int:
    """Bytes that the forward pass keeps for the backward pass.

    By the method of Korthikanti et al. 2022 (arXiv 2205.05198, section 4) for a gated MLP and grouped-query attention
    without dropout. A token keeps in a layer: the inputs of both norms (in float32, as transformers computes them) and
    of the projections after them, queries, keys, values, the attention's output, and gate, up, their activation and
    product. Attention written out (`eager`) repeats keys and values for every query head and keeps its float32 softmax
    over up to `length` tokens; fused kernels recompute it. With gradient checkpointing a layer keeps its input, and one
    layer at a time is computed again (their equation 6: 2sbhL bytes in 16 bits).
    Compared with the bytes that torch saves for SmolLM2-135M: equal in float32; under bfloat16 autocast torch keeps a
    quarter more, casted copies for the LoRA matrices.
    """
    hidden, queries = model.hidden_size, model.num_attention_heads * head_dim(model)
    keys = queries if eager else model.num_key_value_heads * head_dim(model)
    layer = 2 * hidden * 4 + (2 * hidden + 2 * queries + 2 * keys + 4 * model.intermediate_size) * dtype_bytes
    if eager:
        softmax_bytes = 4 if dtype_bytes == 4 else 4 + dtype_bytes
        layer += model.num_attention_heads * length * softmax_bytes
    if checkpointed:
        return tokens * (model.num_hidden_layers * hidden * dtype_bytes + layer)
    return tokens * model.num_hidden_layers * layer


def logit_bytes(model: Architecture, tokens: int) -> int:
    """Logits, their log-probabilities and their gradient, each in float32 (transformers' `ForCausalLMLoss`)."""
    return 3 * 4 * tokens * model.vocab_size
