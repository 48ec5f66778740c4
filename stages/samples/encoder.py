"""Examples as the token ids that a trainer learns, by the model's own chat template.

Rows are counted before training: those that are longer than the limit are cut, dropped or refused, as `train.too_long`
says. A trainer whose library reads other columns derives from `Encoder`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol

from runner.text import count_text
from stages.data.example import Example
from stages.models.chat_template import ChatTemplate
from stages.models.endpoint_form import RefusedRowError
from stages.models.learned import NO_LOSS, Sample, learned
from stages.models.vision import image_bytes
from stages.samples.packing import blocks, packed
from stages.samples.too_long import Cut, shortened, shortened_text

MOST_SHOWN = 5
LAST_ONLY = ("kto", "ppo")
"""Methods that learn the last answer of a conversation alone."""
Columns = dict[str, Any]
# Columns that the collators of pairs and of judged answers read, whether or not there are any.
_NO_MEDIA: Columns = {"images": None, "videos": None, "audios": None}


@dataclass
class Encoded:
    """What became of a split. rows: examples that are learned. samples: sequences made of them.

    refused: the first rows that cannot be learned, with why.
    """

    rows: int = 0
    samples: int = 0
    tokens: int = 0
    loss_tokens: int = 0
    too_long: int = 0
    longest: int = 0
    unanswerable: int = 0
    trimmed: int = 0
    num_refused: int = 0
    refused: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Rules:
    """How rows are learned, from the recipe alone."""

    method: str
    limit: int
    too_long: str
    reasoning: str
    last_only: bool
    on_prompt: bool
    packing: bool
    neat_packing: bool
    limit_name: str = "cutoff_len"  # the argument that `limit` is the value of


class OwnTemplate(Protocol):
    """A template of the trainer's library, which encodes in place of the model's chat template."""

    def samples(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None, *, reasoning: str
    ) -> list[Sample]:
        """The conversation as samples before any cut. Raises RefusedRowError."""


class Encoder:
    """Turns examples into the columns that the trainer's collators read, and counts.

    takes_images: whether the trainer's collators read a column of images.
    """

    takes_images = False

    def __init__(self, template: ChatTemplate, rules: Rules, named: OwnTemplate | None = None) -> None:
        self.template, self.rules, self.counts, self._named = template, rules, Encoded(), named

    def by_chat_template(self) -> Encoder:
        """An encoder of the same rules that uses the model's chat template in any case."""
        return type(self)(self.template, self.rules)

    def columns(self, examples: Iterable[Example]) -> Iterator[Columns]:
        """Rows of the tokenized dataset, in order. Rows that cannot be learned are counted, not raised."""
        method = self.rules.method
        if method == "pt":
            yield from self._texts(examples)
        elif method in ("dpo", "rm"):
            yield from chain.from_iterable(map(self._pair, examples))
        elif method == "kto":
            yield from self.judged_columns([row for each in examples for row in self._judged(each)])
        elif self.rules.packing:
            samples = [sample for each in examples for sample in self._kept(each)]
            yield from packed(
                samples, self.rules.limit, self.template.tokenizer.pad_token_id or 0, neat=self.rules.neat_packing
            )
        else:
            yield from (self._seen(each, sample) for each in examples for sample in self._kept(each))

    def samples(self, example: Example) -> list[Sample]:
        """The example's samples before any cut. Raises RefusedRowError."""
        if example.images:
            self._check_images()
        if self._named:
            return self._named.samples(example.messages, example.tools, reasoning=self.rules.reasoning)
        return learned(
            self.template.seeing(example.images),
            example.messages,
            example.tools,
            reasoning=self.rules.reasoning,
            last_only=self.rules.last_only or self.rules.method in LAST_ONLY,
            on_prompt=self.rules.on_prompt,
        )

    def check_images(self, example: Example) -> None:
        """Raise RefusedRowError where the trainer would make other inputs of the images than the model's processor."""

    def _check_images(self) -> None:
        rules = self.rules
        why = {
            "train.trainer": not self.takes_images,
            f"train.stage={rules.method}": rules.method != "sft",
            "train.args.packing": rules.packing,
            "model.template": self._named is not None,
            f"train.too_long={rules.too_long}": rules.too_long not in ("fail", "drop"),
        }
        if key := next((key for key, refuses in why.items() if refuses), ""):
            raise RefusedRowError(
                f"it has images, and {key} takes none",
                "Rows with images are learned by train.trainer=llamafactory, train.stage=sft, one row a sample "
                "(train.args.packing=false), model.template=null and train.too_long=fail or drop.",
            )

    def pair(self, example: Example) -> tuple[Sample, Sample]:
        """(chosen, rejected) before any cut: one prompt, two answers. Raises RefusedRowError."""
        return self._answered(example, example.chosen, "chosen"), self._answered(example, example.rejected, "rejected")

    def _answered(self, example: Example, answer: Sequence[Any] | None, which: str) -> Sample:
        if example.images:
            self._check_images()
        if self._named:
            whole = [*example.messages, *(answer or [])]
            return self._named.samples(whole, example.tools, reasoning=self.rules.reasoning)[0]
        prompt = [{**message, "train": False} for message in example.messages]
        whole = [*prompt, *({**message, "train": True} for message in answer or [] if message["role"] == "assistant")]
        found = learned(self.template, whole, example.tools, reasoning=self.rules.reasoning)
        if len(found) != 1:
            raise RefusedRowError(
                f"its {which} answer is {count_text(len(found), 'answer')}", "Give one answer of the assistant."
            )
        return found[0]

    def _kept(self, example: Example) -> list[Sample]:
        try:
            samples = self.samples(example)
        except RefusedRowError as error:
            self._refuse(example, error)
            return []
        if not samples:
            self._refuse(example, RefusedRowError("no message of it is to be learned", "Set train: true on an answer."))
        kept = [each for each in (self._cut(sample) for sample in samples) if each is not None]
        self._count(kept)
        return kept

    def _cut(self, *samples: Sample) -> Any:
        """The sample within the limit, None where it is left out; of several, all or none."""
        longest = max(len(sample.ids) for sample in samples)
        self.counts.longest = max(self.counts.longest, longest)
        self.counts.trimmed += any(sample.trimmed for sample in samples)
        cut: Cut = shortened(samples, self.rules.limit, self.rules.too_long, self.template.tokenizer.bos_token_id)
        self.counts.too_long += longest > self.rules.limit
        self.counts.unanswerable += cut.unanswerable
        if cut.samples is None:
            return None
        return cut.samples if len(samples) > 1 else cut.samples[0]

    def _seen(self, example: Example, sample: Sample) -> Columns:
        """The sample's columns, with its images where the model takes any."""
        columns = self._plain(sample)
        if self.takes_images and self.template.vision is not None:
            columns["images"] = [image_bytes(each) for each in (example.images or ())[: sample.num_images]]
        return columns

    def _plain(self, sample: Sample) -> Columns:
        if self.rules.method == "ppo":
            return _columns(sample.ids[: sample.answer_at], sample.ids[sample.answer_at :])
        return _columns(sample.ids, sample.labels)

    def _pair(self, example: Example) -> list[Columns]:
        try:
            pair = self._cut(*self.pair(example))
        except RefusedRowError as error:
            self._refuse(example, error)
            return []
        if pair is None:
            return []
        self._count(pair)
        return [self.pair_columns(*pair)]

    def pair_columns(self, chosen: Sample, rejected: Sample) -> Columns:
        """A row of the dataset for two answers to one prompt."""
        pairs = (("chosen", chosen), ("rejected", rejected))
        columns = {f"{name}_{key}": value for name, each in pairs for key, value in _of(each).items()}
        return {**columns, **_NO_MEDIA}

    def judged_columns(self, rows: list[tuple[Sample, bool]]) -> Iterator[Columns]:
        """Rows of the dataset for answers that are good or not."""
        return _with_other_answers(rows)

    def _judged(self, example: Example) -> list[tuple[Sample, bool]]:
        return [(sample, bool(example.label)) for sample in self._kept(example)]

    def _texts(self, examples: Iterable[Example]) -> Iterator[Columns]:
        tokenizer, rules = self.template.tokenizer, self.rules
        starts = [tokenizer.bos_token_id] if getattr(tokenizer, "add_bos_token", False) else []
        rows = ([*self.template.ids((each.text or "") + (tokenizer.eos_token or ""))] for each in examples)
        if rules.packing:
            for block in blocks(self._counted(rows), rules.limit - len(starts)):
                self.counts.samples += 1
                yield {"input_ids": starts + block, "attention_mask": [1] * (len(starts) + len(block))}
            return
        for ids in self._counted(rows):
            whole = Sample(starts + ids, starts + ids, len(starts))
            self.counts.longest = max(self.counts.longest, len(whole.ids))
            self.counts.too_long += len(whole.ids) > rules.limit
            for sample in shortened_text(whole, rules.limit, rules.too_long).samples or ():
                self.counts.samples += 1
                yield {"input_ids": sample.ids, "attention_mask": [1] * len(sample.ids)}

    def _counted(self, rows: Iterable[list[int]]) -> Iterator[list[int]]:
        for ids in rows:
            self.counts.rows += 1
            self.counts.tokens += len(ids)
            self.counts.loss_tokens += len(ids)
            yield ids

    def _count(self, samples: Sequence[Sample]) -> None:
        counts = self.counts
        counts.rows += bool(samples)
        counts.samples += len(samples)
        counts.tokens += sum(len(sample.ids) for sample in samples)
        counts.loss_tokens += sum(label != NO_LOSS for sample in samples for label in sample.labels)

    def _refuse(self, example: Example, error: RefusedRowError) -> None:
        self.counts.num_refused += 1
        if len(self.counts.refused) < MOST_SHOWN:
            self.counts.refused.append(f"{example.source or example.id}: {error.message}. {error.hint}")


def _columns(ids: list[int], labels: list[int]) -> Columns:
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}


def _of(sample: Sample) -> Columns:
    return _columns(sample.ids, sample.labels)


def _with_other_answers(rows: list[tuple[Sample, bool]]) -> Iterator[Columns]:
    """KTO's rows: each with the answer of the row before it, for the estimate of the divergence."""
    for index, (sample, label) in enumerate(rows):
        other = rows[index - 1][0]
        answer = other.ids[other.answer_at :]
        prompt = sample.ids[: sample.answer_at]
        divergent = _columns(prompt + answer, [NO_LOSS] * len(prompt) + answer)
        other_columns = {f"kl_{name}": value for name, value in divergent.items()}
        yield {**_of(sample), "kto_tags": label, **other_columns, **_NO_MEDIA}
