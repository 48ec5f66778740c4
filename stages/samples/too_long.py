"""Samples that are longer than the limit, as `train.too_long` says. The last answer is never cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stages.models.learned import NO_LOSS, Sample


@dataclass(frozen=True)
class Cut:
    """samples: None where they are left out. unanswerable: the answer and any of its prompt do not fit."""

    samples: list[Sample] | None
    unanswerable: bool = False


def shortened(samples: Sequence[Sample], limit: int, rule: str, first_id: int | None) -> Cut:
    """Samples of one prompt within `limit` tokens, all cut alike.

    rule: `fail` and `drop` leave out what is longer; `cut_start` takes tokens from the prompt's start (but keeps a
    first token of id `first_id`), `cut_middle` from its middle.
    """
    excess = max(len(sample.ids) for sample in samples) - limit
    if excess <= 0:
        return Cut(list(samples))
    prompt = min(sample.answer_at for sample in samples)
    kept_first = int(rule == "cut_start" and samples[0].ids[0] == first_id)
    if prompt - excess <= kept_first:
        return Cut(None, unanswerable=True)
    if rule in ("fail", "drop"):
        return Cut(None)
    start = kept_first if rule == "cut_start" else (prompt - excess) // 2
    return Cut([_without(sample, start, start + excess) for sample in samples])


def shortened_text(sample: Sample, limit: int, rule: str) -> Cut:
    """A text for pretraining within `limit` tokens: it has no answer, and loses of its start or its middle. What stands
    before `answer_at` is kept."""
    excess, kept = len(sample.ids) - limit, sample.answer_at
    if excess <= 0:
        return Cut([sample])
    if rule in ("fail", "drop"):
        return Cut(None)
    start = kept if rule == "cut_start" else kept + (limit - kept) // 2
    ids = sample.ids[:start] + sample.ids[start + excess :]
    return Cut([Sample(ids, ids, kept)])


def _without(sample: Sample, start: int, end: int) -> Sample:
    """The sample without tokens start to end; an earlier answer that loses its beginning is not learned."""
    labels = list(sample.labels)
    at = end
    while 0 < at < sample.answer_at and labels[at - 1] != NO_LOSS and labels[at] != NO_LOSS:
        labels[at] = NO_LOSS
        at += 1
    return Sample(
        sample.ids[:start] + sample.ids[end:],
        labels[:start] + labels[end:],
        sample.answer_at - (end - start),
        sample.trimmed,
    )
