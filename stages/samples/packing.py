"""Several samples in one sequence, in the form that LLaMA-Factory's collators read."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from stages.models.learned import NO_LOSS, Sample


def packed(samples: Sequence[Sample], limit: int, pad_id: int, *, neat: bool) -> Iterator[dict[str, Any]]:
    """Sequences of `limit` tokens, padded, each of as many whole samples as fit, the longest first.

    neat: number each sample in the attention mask, so that none sees another.
    """
    for group in _groups([len(sample.ids) for sample in samples], limit):
        row: dict[str, list[int]] = {"input_ids": [], "attention_mask": [], "position_ids": [], "labels": []}
        for number, index in enumerate(group, 1):
            sample = samples[index]
            row["input_ids"] += sample.ids
            row["labels"] += sample.labels
            row["position_ids"] += range(len(sample.ids))
            row["attention_mask"] += [number if neat else 1] * len(sample.ids)
        rest = limit - len(row["input_ids"])
        row["input_ids"] += [pad_id] * rest
        row["labels"] += [NO_LOSS] * rest
        row["position_ids"] += [0] * rest
        row["attention_mask"] += [0 if neat else 1] * rest
        yield row


def _groups(lengths: list[int], limit: int) -> Iterator[list[int]]:
    """Indices of samples that together fit into the limit: each group takes the longest that still fits."""
    waiting: list[tuple[int, int]] = []
    for index, length in enumerate(lengths):
        insort(waiting, (length, -index))
    while waiting:
        group, room = [], limit
        while (at := bisect_right(waiting, (room, 1))) > 0:
            length, index = waiting.pop(at - 1)
            group.append(-index)
            room -= length
        yield group


def blocks(texts: Iterable[list[int]], limit: int) -> Iterator[list[int]]:
    """The texts one after the other, in blocks of `limit` tokens; the last may be shorter."""
    block: list[int] = []
    for ids in texts:
        block += ids
        while len(block) >= limit:
            yield block[:limit]
            block = block[limit:]
    if block:
        yield block
