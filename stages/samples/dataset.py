"""The tokenized training set on disk, and what a person should know of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.errors import RunnerError
from runner.text import count_text
from stages.data.example import Example, read_examples
from stages.models.chat_template import ChatTemplate
from stages.models.time_limit import MAKERS_CODE, within
from stages.samples import without_torch
from stages.samples.encoder import Columns, Encoded, Encoder, Rules

if TYPE_CHECKING:
    from stages.sections.recipe import Recipe

EncoderOf = Callable[["Recipe", ChatTemplate], Encoder]


def tokenize(recipe: Recipe, model: str, train_set: str, target: str, encoder_of: EncoderOf) -> dict[str, Any]:
    """`write_tokens` with the chat template's text (`chat_template`) and the counts.

    model, train_set, target: folders that every node sees. encoder_of: the trainer's.
    """
    without_torch.begin()

    def written() -> dict[str, Any]:
        template = ChatTemplate.of(recipe, model)
        counts = write_tokens(recipe, template, Path(train_set), Path(target), encoder_of)
        return {**counts, "chat_template": template.source_or_none()}

    counts: dict[str, Any] = within(None, MAKERS_CODE, written)
    return counts


def write_tokens(
    recipe: Recipe, template: ChatTemplate, train_set: Path, target: Path, encoder_of: EncoderOf
) -> dict[str, Any]:
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
        encoder = encoder_of(recipe, template)
        examples = _limited(read_examples(train_set / f"{split}.jsonl"), recipe.train.max_samples)
        rows = encoder.columns(examples)
        first = list(islice(rows, 1))
        if not first:
            judge(encoder.counts, encoder.rules, split)
        path = _write(chain(first, rows), parts / f"{name}.arrow")
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
    """With `val_size`, a part of the training set apart for validation, drawn by the recipe's seed."""
    size = float(recipe.train.args.get("val_size") or 0)
    if not size:
        return made
    both = made["train"].train_test_split(test_size=int(size) if size > 1 else size, seed=recipe.seed)
    return {"train": both["train"], "validation": both["test"]}


def _write(rows: Iterable[Columns], path: Path) -> Path:
    from datasets import Features, List, Value
    from datasets.arrow_writer import ArrowWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    rows = iter(rows)
    first = next(rows)
    # the type of a list of images would be told by the first rows, which may have none
    images = first.get("images") is not None
    types = {name: List(Value("binary" if name == "images" else "int64")) for name in first} if images else None
    with ArrowWriter(path=str(path), features=Features(types) if types else None) as writer:
        for row in chain([first], rows):
            writer.write(row)
        writer.finalize()
    return path


def judge(counts: Encoded, rules: Rules, split: str) -> None:
    """Raises RunnerError for rows that cannot be learned as they are, and where nothing is left to learn."""
    if counts.num_refused:
        shown = "".join(f"\n  {line}" for line in counts.refused)
        more = counts.num_refused - len(counts.refused)
        raise RunnerError(
            f"{count_text(counts.num_refused, 'row')} of the {split} split cannot be learned:{shown}"
            + (f"\n  and {more:,} more" if more else ""),
            "Correct the rows or the keys named above.",
        )
    if counts.too_long and rules.too_long == "fail":
        name = rules.limit_name
        raise RunnerError(
            f"{split}: {_longer(counts.too_long, name, rules)} tokens, the longest {counts.longest:,}",
            f"Raise train.args.{name}, or set train.too_long to what is to be done: drop, cut_start or cut_middle.",
        )
    if not counts.samples:
        name = rules.limit_name
        longer = f": {_longer(counts.too_long, name, rules)} tokens" if counts.too_long else ""
        raise RunnerError(
            f"the {split} split has nothing to learn{longer}",
            f"Raise train.args.{name} (the longest sample has {counts.longest:,} tokens), or correct the data.",
        )


def _longer(count: int, name: str, rules: Rules) -> str:
    return f"{count_text(count, 'sample is', 'samples are')} longer than {name}={rules.limit}"


def remarks(counts: dict[str, Any], too_long: str, method: str) -> list[str]:
    """Lines for the terminal: what became of rows that are too long or whose answers the template trims.

    method: by which they are learned. A pair of answers is two samples, and texts are cut into blocks.
    """
    lines = []
    for split, each in counts.items():
        if each["too_long"]:
            cut = "left out" if too_long == "drop" else f"cut ({too_long})"
            alone = (
                f", {each['unanswerable']:,} of them left out because the answer alone is longer"
                if each["unanswerable"] and too_long != "drop"
                else ""
            )
            lines.append(
                f"{split}: {count_text(each['too_long'], 'sample is', 'samples are')} too long and {cut}{alone}"
            )
        if method == "sft" and each["samples"] > each["rows"]:
            rows = count_text(each["rows"], "conversation is", "conversations are")
            lines.append(
                f"{split}: {rows} {count_text(each['samples'], 'sample')}, because the chat template renders earlier "
                "turns otherwise than the last"
            )
        if each["trimmed"]:
            lines.append(f"{split}: the chat template trims white space around {count_text(each['trimmed'], 'answer')}")
    return lines
