"""What is worth knowing of the data: duplicates, contradictions, test rows among training rows, one-sided answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from stages.data.example import Example
from stages.ingest.collect import Collected

_MOST_CLASSES = 20
_ONE_SIDED = 0.9
_SHOWN_CHARS = 60


def remarks(splits: Mapping[str, Collected], paths: Mapping[str, Path]) -> list[str]:
    """One line for each thing found."""
    lines = [line for split, found in splits.items() for line in _of_split(split, found, paths[split])]
    return [*lines, *_overlap(splits, paths)]


def _of_split(split: str, found: Collected, path: Path) -> Iterator[str]:
    yield from _duplicates(split, found, path)
    if split == "train":
        yield from _balance(found, path)
    if found.num_equal_pairs:
        yield (
            f"{split}: {found.num_equal_pairs:,} of {found.num_rows:,} preference pairs have equal answers, from which "
            "nothing is learned"
        )
    if found.num_control:
        yield (
            f"{split}: {found.num_control:,} rows hold what looks like control tokens of a chat template, such as "
            f"{found.control} in {found.control_at}"
        )


def _duplicates(split: str, found: Collected, path: Path) -> Iterator[str]:
    """Rows that are there twice, and prompts that have several answers."""
    import numpy as np

    prompts, answers = np.asarray(found.prompts), np.asarray(found.answers)
    if len(prompts) < 2:
        return
    order = np.lexsort((answers, prompts))
    same_prompt = prompts[order][1:] == prompts[order][:-1]
    same_answer = answers[order][1:] == answers[order][:-1]
    if num_same := int((same_prompt & same_answer).sum()):
        at = int(np.flatnonzero(same_prompt & same_answer)[0])
        are = "row is a duplicate of another" if num_same == 1 else "rows are duplicates of others"
        yield f"{split}: {num_same:,} {are}, such as {_places(path, order[at : at + 2])}"
    if num_other := int((same_prompt & ~same_answer).sum()):
        at = int(np.flatnonzero(same_prompt & ~same_answer)[0])
        asked = "row has" if num_other == 1 else "rows have"
        yield (
            f"{split}: {num_other:,} {asked} the prompt of another row and a different answer, such as "
            f"{_places(path, order[at : at + 2])}"
        )


def _balance(found: Collected, path: Path) -> Iterator[str]:
    """Whether the answers are a few classes of which one has nearly all rows."""
    if len(found.answers) < _MOST_CLASSES:
        return
    counts = Counter(islice(found.answers, 1_000_000))
    (key, most), total = counts.most_common(1)[0], sum(counts.values())
    if len(counts) > _MOST_CLASSES and most <= total * _ONE_SIDED:
        return
    answer = example_at(path, found.answers.index(key)).reference
    if most > total * _ONE_SIDED and answer:
        yield f"train: {most / total:.0%} of the answers are {answer[:_SHOWN_CHARS]!r}"
    elif len(counts) > 1 and answer:
        shown = [
            f"{example_at(path, found.answers.index(each)).reference[:_SHOWN_CHARS]!r} {count / total:.0%}"
            for each, count in counts.most_common(5)
        ]
        more = f", and {len(counts) - 5} more" if len(counts) > 5 else ""
        yield f"train: the answers are {len(counts)} classes: {', '.join(shown)}{more}"


def _overlap(splits: Mapping[str, Collected], paths: Mapping[str, Path]) -> Iterator[str]:
    train = splits.get("train")
    for split in ("val", "test"):
        if train is None or split not in splits:
            continue
        import numpy as np

        mine = np.asarray(splits[split].prompts)
        shared = np.isin(mine, np.asarray(train.prompts))
        if num_shared := int(shared.sum()):
            first = example_at(paths[split], int(np.flatnonzero(shared)[0])).source
            yield (
                f"{split}: {num_shared:,} of {len(mine):,} {split} rows are training rows, such as {first}: "
                "scores on them say little"
            )


def _places(path: Path, indices: Any) -> str:
    return " and ".join(example_at(path, int(index)).source for index in sorted(indices))


def example_at(path: Path, index: int) -> Example:
    """The example of that number in a file."""
    with path.open("rb") as file:
        return Example.from_json(next(islice(file, index, None)))
