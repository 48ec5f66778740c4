"""LoRA on CPUs in vLLM: right for batches that mix base model and adapters, and fast.

vLLM 0.27.1 marks a token without an adapter by the index -1, and its CPU code takes that for the last adapter: with as
many adapters loaded as `max_loras`, rows of the base model that share a step with rows of an adapter are answered with
the adapter. It also copies the adapter's matrices once for every token, which made a prompt of the adapter take 2.6
times as long as one of the base model (SmolLM2-135M, rank 8), against 1.1 times here.

Imports vLLM and torch: only an engine's process imports this module, by the name in `EXECUTOR` (stages/infer.py).
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform

from stages.cpu_executor import LoopbackExecutor

Groups = list[tuple[int, torch.Tensor | None]]


class CpuExecutor(LoopbackExecutor):
    """vLLM's in-process executor with this module's LoRA."""

    def _init_executor(self) -> None:
        name = f"{PunicaWrapperByAdapter.__module__}.{PunicaWrapperByAdapter.__qualname__}"
        type(current_platform).get_punica_wrapper = classmethod(lambda cls: name)
        super()._init_executor()


class PunicaWrapperByAdapter(PunicaWrapperCPU):  # type: ignore[misc]
    """Applies each adapter by two matrix products over the tokens that are its own."""

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
        start = 0
        for lora_a, lora_b, size in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
            add_adapters(y.view(-1, y.shape[-1])[:, start : start + size], x, lora_a, lora_b, scale, self._tokens)
            start += size

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
        size = lora_b_stacked.shape[-2]
        add_adapters(y.view(-1, y.shape[-1])[:, :size], x, lora_a_stacked, lora_b_stacked, scale, self._samples)


def add_adapters(
    y: torch.Tensor, x: torch.Tensor, lora_a: torch.Tensor, lora_b: torch.Tensor, scale: float, groups: Groups
) -> None:
    """Add each adapter's part to its own tokens' rows of y (tokens, out), in place. x: (tokens, in)."""
    x = x.view(-1, x.shape[-1])
    for slot, tokens in groups:
        own = x if tokens is None else x[tokens]
        delta = ((own @ lora_a[slot, 0].T * scale) @ lora_b[slot, 0].T)[:, : y.shape[-1]]
        if tokens is None:
            y += delta
        else:
            y.index_add_(0, tokens, delta.to(y.dtype))


def tokens_by_adapter(indices: torch.Tensor) -> Groups:
    """(slot, positions of its tokens) of each adapter in a step; None for positions means all; -1 is no adapter."""
    slots = indices.unique().tolist()
    if len(slots) == 1 and slots[0] >= 0:
        return [(slots[0], None)]
    return [(slot, (indices == slot).nonzero().flatten()) for slot in slots if slot >= 0]
