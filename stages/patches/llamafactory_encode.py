"""One conversation as LLaMA-Factory's own processor of supervised data encodes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def encode(
    processor: Any, prompt: Sequence[Mapping[str, Any]], answer: Sequence[Mapping[str, Any]], system: str
) -> tuple[list[int], list[int]]:
    """Token ids and labels of a conversation without tools and media. answer: its last message alone.

    processor: LLaMA-Factory's `SupervisedDatasetProcessor`.
    """
    ids, labels = processor._encode_data_example(prompt, answer, system, "", [], [], [])
    return list(ids), list(labels)
