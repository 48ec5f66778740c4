"""LoRA on CPUs in vLLM: right for batches that mix base model and adapters, and fast.

vLLM 0.29.0 marks a token without an adapter by the index -1, and its CPU code takes that for the last adapter: with as
many adapters loaded as `max_loras`, rows of the base model that share a step with rows of an adapter are answered with
the adapter. It also copies the adapter's matrices once for every token, which made a prompt of the adapter take 2.6
times as long as one of the base model (SmolLM2-135M, rank 8), against 1.1 times here.

An adapter's matrices are small, so they are applied to all tokens of a step, and what is not its own counts nothing:
picking its tokens out and adding their parts back in took longer than the model itself where base and adapter mix.

Imports vLLM and torch: only an engine's process imports it, by `CPU_EXECUTOR` of stages/engines/vllm/batch.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform
from vllm.v1.executor.uniproc_executor import UniProcExecutor

Groups = list[tuple[int, torch.Tensor | None]]  # slot of an adapter; whether a token is its own, (tokens, 1)


class CpuExecutor(UniProcExecutor):  # type: ignore[misc]
    """vLLM's in-process executor with this module's LoRA."""

    def _init_executor(self) -> None:
        name = f"{PunicaWrapperByAdapter.__module__}.{PunicaWrapperByAdapter.__qualname__}"
        type(current_platform).get_punica_wrapper = classmethod(lambda cls: name)
        super()._init_executor()


class PunicaWrapperByAdapter(PunicaWrapperCPU):  # type: ignore[misc]
    """Applies each adapter by products of matrices over all tokens of a step."""

    def update_metadata(
        self, mapping: Any, lora_index_to_id: list[int | None], max_loras: int, vocab_size: int, **kwargs: Any
    ) -> None:
        super().update_metadata(mapping, lora_index_to_id, max_loras, vocab_size, **kwargs)
        self._tokens = tokens_by_adapter(self.token_lora_indices)
        self._samples = tokens_by_adapter(self.sampler_indices)

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **kwargs: Any,
    ) -> None:
        """y[token, slice] += x[token] @ A^T @ B^T * scale. Shapes: A (slots, 1, rank, in), B (slots, 1, out, rank)."""
        y = y.view(-1, y.shape[-1])
        parts = y.split(output_slices, dim=1)
        add_adapters(parts, x, lora_a_stacked, lora_b_stacked, scale, self._tokens)

    def add_lora_logits(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        scale: float,
        **kwargs: Any,
    ) -> None:
        """The same for the output layer, of which only the sampled tokens are computed."""
        parts = (y.view(-1, y.shape[-1])[:, : lora_b_stacked.shape[-2]],)
        add_adapters(parts, x, (lora_a_stacked,), (lora_b_stacked,), scale, self._samples)


def add_adapters(
    parts: Sequence[torch.Tensor],
    x: torch.Tensor,
    lora_a: Sequence[torch.Tensor],
    lora_b: Sequence[torch.Tensor],
    scale: float,
    groups: Groups,
) -> None:
    """Add each adapter's part to its own tokens' rows of the outputs (tokens, out), in place. x: (tokens, in).

    Each output has an A and a B of its own, such as queries, keys and values, which are made of the same input.
    """
    x = x.view(-1, x.shape[-1])
    for slot, own in groups:
        hidden = x @ torch.cat([each[slot, 0] for each in lora_a]).T
        if scale != 1:
            hidden *= scale
        if own is not None:
            hidden *= own
        for y, low, each in zip(parts, hidden.chunk(len(lora_a), dim=1), lora_b, strict=True):
            high = each[slot, 0, : y.shape[-1]].T
            if y.dtype == low.dtype:
                y.addmm_(low, high)
            else:
                y += low @ high


def tokens_by_adapter(indices: torch.Tensor) -> Groups:
    """Each adapter of a step and its tokens, None for all. indices: (tokens,), slots, and -1 for no adapter."""
    slots = indices.unique().tolist()
    if len(slots) == 1 and slots[0] >= 0:
        return [(slots[0], None)]
    return [(slot, (indices == slot).unsqueeze(1)) for slot in slots if slot >= 0]
