"""Memory of training, in bytes for one worker, part by part. What cannot be counted is a reason.

Left out: what torch, CUDA and the processes themselves take (a GPU's context and kernels are about 1 GB).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from runner.pipeline.estimates.figure import Parts
from runner.recipe.machine import cpu_dtype
from stages.models.architecture import DTYPE_BYTES, head_dim, lora_params
from stages.sections.model import Architecture
from stages.sections.recipe import Recipe

_ADAM_BYTES = 8  # two moments in float32 (Rajbhandari et al. 2020, ZeRO, section 3.1)
_TRAINED_BYTES = 4  # trainers keep what they train in float32, and so are its gradients
ADAM = ("adamw_torch", "adamw_torch_fused", "adamw_apex_fused")


@dataclass(frozen=True)
class Setup:
    """What decides on the memory and the steps of a training, in the words that trainers share.

    kind: lora, full, or another of the trainer's. batch: rows of a worker's step. gather: steps until the optimizer's.
    length: the most tokens of a row. max_steps: 0 where epochs decide. half: computes in 16 bits. eager: writes
    attention out. checkpointed: computes activations again. fused_loss: without all logits at once. wide: holds frozen
    weights in float32, too. uncounted: an argument that shards, shrinks or offloads what is counted here, "" for none.
    rows_by: one after which the number of rows is not known beforehand, "" for none. names: what the trainer calls the
    fields that a person may change, as `train.args.NAME`, with the value where there is one; and `bits`, weights of
    four.
    """

    kind: str
    batch: int
    gather: int
    length: int
    max_steps: int
    optimizer: str
    weights_only: bool
    half: bool
    eager: bool
    checkpointed: bool
    fused_loss: bool
    wide: bool = False
    uncounted: str = ""
    rows_by: str = ""
    names: Mapping[str, str] = field(default_factory=dict)


def trained_params(recipe: Recipe, setup: Setup, model: Architecture, num_params: int) -> int | str:
    """How many parameters training changes, or why that is not known."""
    if setup.kind == "full":
        return num_params
    if setup.kind != "lora":
        return f"train.args.finetuning_type={setup.kind} is not counted here"
    target = recipe.train.lora_target
    if (count := lora_params(model, recipe.train.lora_rank, target)) is None:
        return f"a layer of {model.model_type} has no modules {target}"
    return count


def checkpoint_bytes(setup: Setup, trained: int) -> int | str:
    """Bytes of one of the trainer's checkpoints: what is trained and Adam's two moments of it, all in float32."""
    if setup.optimizer not in ADAM:
        return f"the states of train.args.optim={setup.optimizer} are not counted here"
    return trained * (_TRAINED_BYTES + (0 if setup.weights_only else _ADAM_BYTES))


def train_memory(recipe: Recipe, setup: Setup, model: Architecture, num_params: int) -> Parts | str:
    """Weights, LoRA, gradients, optimizer and activations of one training worker, or why they are not known.

    Under LoRA the frozen weights are as they are stored (trainers load them with dtype "auto"), in full training and on
    CPUs without bfloat16 in float32. Activations: two bytes in 16 bits or on a GPU. On CPUs four: without autocast the
    inputs of LoRA's matrices are kept in float32.
    """
    if setup.uncounted:
        return f"with train.args.{setup.uncounted} it is not counted here"
    if recipe.train.stage not in ("sft", "pt"):
        return f"train.stage={recipe.train.stage} holds more than one model or row at a time"
    trained = trained_params(recipe, setup, model, num_params)
    if isinstance(trained, str):
        return trained
    if setup.optimizer not in ADAM:
        return f"the states of train.args.optim={setup.optimizer} are not counted here"
    computing = 2 if setup.half or recipe.cluster.accelerator == "gpu" else 4
    full = setup.kind == "full"
    widened = recipe.cluster.accelerator == "cpu" and cpu_dtype() == "float32"  # stages.trainers.worker.precision
    element = _TRAINED_BYTES if full or widened or setup.wide else DTYPE_BYTES[model.dtype]
    parts = {"weights": num_params * element}
    if not full:
        parts["LoRA"] = trained * _TRAINED_BYTES
    parts |= {"gradients": trained * _TRAINED_BYTES, "optimizer": trained * _ADAM_BYTES}
    tokens = setup.batch * setup.length
    parts["activations"] = activation_bytes(
        model, tokens, setup.length, computing, eager=setup.eager, checkpointed=setup.checkpointed
    )
    if not setup.fused_loss:
        parts["logits"] = logit_bytes(model, tokens)
    return parts


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
