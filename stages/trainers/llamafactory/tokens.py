"""The training set as LLaMA-Factory's tokenized datasets, so that it learns what the chat template renders.

LLaMA-Factory reads such a folder by `tokenized_path` and renders nothing itself. Rows are counted before training:
those that are longer than the limit are cut, dropped or refused, as `train.too_long` says.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.errors import RunnerError
from stages.data.example import Example, read_examples
from stages.models.chat_template import ChatTemplate
from stages.models.endpoint_form import RefusedRowError
from stages.models.learned import NO_LOSS, Sample, learned
from stages.trainers.llamafactory.named_template import NamedTemplate
from stages.trainers.llamafactory.packing import blocks, packed
from stages.trainers.llamafactory.too_long import Cut, shortened

if TYPE_CHECKING:
    from runner.recipe.schema import Recipe

DEFAULT_CUTOFF = 2048
MOST_SHOWN = 5
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

    @classmethod
    def of(cls, recipe: Recipe) -> Rules:
        args, train = recipe.train.args, recipe.train
        neat = bool(args.get("neat_packing"))
        packing = args.get("packing")
        return cls(
            method=train.stage,
            limit=int(args.get("cutoff_len") or DEFAULT_CUTOFF),
            too_long=train.too_long,
            reasoning=train.reasoning,
            last_only=bool(args.get("mask_history")),
            on_prompt=bool(args.get("train_on_prompt")),
            packing=(train.stage == "pt" if packing is None else bool(packing)) or neat,
            neat_packing=neat,
        )


class Encoder:
    """Turns examples into the columns that LLaMA-Factory's collators read, and counts."""

    def __init__(self, template: ChatTemplate, rules: Rules, named: NamedTemplate | None = None) -> None:
        self.template, self.rules, self.counts, self._named = template, rules, Encoded(), named

    @classmethod
    def of(cls, recipe: Recipe, template: ChatTemplate) -> Encoder:
        """The recipe's encoder; with one of LLaMA-Factory's templates where `model.template` names it."""
        rules, named = Rules.of(recipe), None
        if recipe.model.template is not None:
            named = NamedTemplate(
                recipe.model.template,
                template.tokenizer.name_or_path,
                last_only=rules.last_only or rules.method not in ("sft", "pt"),
                on_prompt=rules.on_prompt,
                trust_remote_code=recipe.model.trust_remote_code,
            )
        return cls(template, rules, named)

    def by_chat_template(self) -> Encoder:
        """An encoder of the same rules that uses the model's chat template in any case."""
        return Encoder(self.template, self.rules)

    def columns(self, examples: Iterable[Example]) -> Iterator[Columns]:
        """Rows of the tokenized dataset, in order. Rows that cannot be learned are counted, not raised."""
        method = self.rules.method
        if method == "pt":
            yield from self._texts(examples)
        elif method in ("dpo", "rm"):
            yield from chain.from_iterable(map(self._pair, examples))
        elif method == "kto":
            yield from _with_other_answers([row for each in examples for row in self._judged(each)])
        elif self.rules.packing:
            samples = [sample for each in examples for sample in self._kept(each)]
            yield from packed(
                samples, self.rules.limit, self.template.tokenizer.pad_token_id or 0, neat=self.rules.neat_packing
            )
        else:
            yield from (self._plain(sample) for each in examples for sample in self._kept(each))

    def samples(self, example: Example) -> list[Sample]:
        """The example's samples before any cut. Raises RefusedRowError."""
        if example.images:
            raise RefusedRowError("it has images, and images are not taken", "Use rows with text alone.")
        if self._named:
            return self._named.samples(example.messages, example.tools, reasoning=self.rules.reasoning)
        return learned(
            self.template,
            example.messages,
            example.tools,
            reasoning=self.rules.reasoning,
            last_only=self.rules.last_only or self.rules.method in ("kto", "ppo"),
            on_prompt=self.rules.on_prompt,
        )

    def pair(self, example: Example) -> tuple[Sample, Sample]:
        """(chosen, rejected) before any cut: one prompt, two answers. Raises RefusedRowError."""
        return self._answered(example, example.chosen, "chosen"), self._answered(example, example.rejected, "rejected")

    def _answered(self, example: Example, answer: Sequence[Any] | None, which: str) -> Sample:
        if self._named:
            whole = [*example.messages, *(answer or [])]
            return self._named.samples(whole, example.tools, reasoning=self.rules.reasoning)[0]
        prompt = [{**message, "train": False} for message in example.messages]
        whole = [*prompt, *({**message, "train": True} for message in answer or [] if message["role"] == "assistant")]
        found = learned(self.template, whole, example.tools, reasoning=self.rules.reasoning)
        if len(found) != 1:
            raise RefusedRowError(f"its {which} answer is {len(found)} answers", "Give one answer of the assistant.")
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
        names = ("chosen", "rejected")
        columns = {f"{n}_{key}": v for n, each in zip(names, pair, strict=True) for key, v in _of(each).items()}
        return [{**columns, **_NO_MEDIA}]

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
            sample = self._cut(Sample(starts + ids, starts + ids, len(starts)))
            if sample is not None:
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


def tokenize(recipe: Recipe, model: str, train_set: str, target: str) -> dict[str, Any]:
    """`write_tokens` as a task of its own, with the chat template's text (`chat_template`) beside the counts.

    model, train_set, target: folders that every node sees.
    """
    template = ChatTemplate.of(recipe, model)
    counts = write_tokens(recipe, template, Path(train_set), Path(target))
    return {**counts, "chat_template": template.source_or_none()}


def write_tokens(recipe: Recipe, template: ChatTemplate, train_set: Path, target: Path) -> dict[str, Any]:
    """Write `train` and, where the recipe evaluates during training, `validation` as a dataset on disk.

    Returns the counts of each. Raises RunnerError naming the rows that cannot be learned, and rows that are too long
    where `train.too_long` is fail.
    """
    from datasets import Dataset, DatasetDict

    shutil.rmtree(target, ignore_errors=True)
    parts = target.with_name(f"{target.name}.parts")
    shutil.rmtree(parts, ignore_errors=True)
    made, counts = {}, {}
    for name, split in _splits(recipe).items():
        encoder = Encoder.of(recipe, template)
        examples = _limited(read_examples(train_set / f"{split}.jsonl"), recipe.train.max_samples)
        path = _write(encoder.columns(examples), parts / f"{name}.arrow")
        judge(encoder.counts, encoder.rules, split)
        made[name], counts[name] = Dataset.from_file(str(path)), asdict(encoder.counts)
    DatasetDict(_split_off(made, recipe)).save_to_disk(str(target))
    shutil.rmtree(parts)
    return counts


def _splits(recipe: Recipe) -> dict[str, str]:
    wanted = recipe.train.args.get("eval_dataset")
    return {"train": "train", **({"validation": str(wanted)} if wanted else {})}


def _limited(examples: Iterator[Example], limit: int | None) -> Iterator[Example]:
    return (example for index, example in enumerate(examples) if limit is None or index < limit)


def _split_off(made: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """With `val_size`, a part of the training set apart for validation, as LLaMA-Factory takes it."""
    size = float(recipe.train.args.get("val_size") or 0)
    if not size:
        return made
    both = made["train"].train_test_split(test_size=int(size) if size > 1 else size, seed=recipe.seed)
    return {"train": both["train"], "validation": both["test"]}


def _write(rows: Iterator[Columns], path: Path) -> Path:
    from datasets.arrow_writer import ArrowWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    with ArrowWriter(path=str(path)) as writer:
        for row in rows:
            writer.write(row)
        writer.finalize()
    return path


def judge(counts: Encoded, rules: Rules, split: str) -> None:
    """Raises RunnerError for rows that cannot be learned as they are, and where nothing is left to learn."""
    if counts.num_refused:
        shown = "".join(f"\n  {line}" for line in counts.refused)
        more = counts.num_refused - len(counts.refused)
        raise RunnerError(
            f"{counts.num_refused:,} rows of the {split} split cannot be learned as they are:{shown}"
            + (f"\n  and {more:,} more" if more else ""),
            "Correct the rows or the keys named above.",
        )
    if counts.too_long and rules.too_long == "fail":
        raise RunnerError(
            f"{counts.too_long:,} of the {split} split's samples are longer than cutoff_len={rules.limit} tokens, the "
            f"longest {counts.longest:,}",
            "Raise train.args.cutoff_len, or set train.too_long to what is to be done: drop, cut_start or cut_middle.",
        )
    if not counts.samples:
        raise RunnerError(
            f"the {split} split has nothing to learn", "Raise train.args.cutoff_len, or correct the data."
        )


def remarks(counts: dict[str, Any], too_long: str) -> list[str]:
    """Lines for the terminal: what became of rows that are too long or whose answers the template trims."""
    lines = []
    for split, each in counts.items():
        if each["too_long"]:
            cut = "left out" if too_long == "drop" else f"cut ({too_long})"
            alone = (
                f", {each['unanswerable']:,} of them left out because the answer alone is longer"
                if each["unanswerable"] and too_long != "drop"
                else ""
            )
            lines.append(f"{split}: {each['too_long']:,} samples are too long and {cut}{alone}")
        if each["samples"] > each["rows"]:
            lines.append(
                f"{split}: {each['rows']:,} conversations are {each['samples']:,} samples, because the chat template "
                "renders earlier turns otherwise than the last"
            )
        if each["trimmed"]:
            lines.append(f"{split}: the chat template trims white space around {each['trimmed']:,} answers")
    return lines
