"""What is worth knowing of the data: duplicates, contradictions, test rows among training rows, one-sided answers."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from runner.text import count_text
from stages.data.example import Example
from stages.data.shapes.pictures import PLACE
from stages.ingest.rows.collect import Collected

_MOST_CLASSES, _MOST_BALANCED = 20, 1_000_000
_ONE_SIDED = 0.9
_SHOWN_CHARS = 60
_PERCENTILES = (50, 90, 99)
CONTROL = ("what looks like control tokens of a chat template", "control tokens of the model as texts")


def remarks(
    splits: Mapping[str, Collected], paths: Mapping[str, Path], used: Collection[str] | None = None
) -> list[str]:
    """One line for each thing found. used: columns that the prompt reads, where it is known."""
    lines = [line for split, found in splits.items() for line in _of_split(split, found, paths[split])]
    if used is not None:
        lines += _unused(splits, used)
    return [*lines, *_overlap(splits, paths)]


def _of_split(split: str, found: Collected, path: Path) -> Iterator[str]:
    yield from _written(split, found)
    yield from _duplicates(split, found, path)
    if split == "train":
        yield from _balance(found, path)
        yield from _labels(found)
    if bad := found.num_bad_answers:
        rows = count_text(found.num_rows + bad, "row")
        why = "with which no prediction is compared: their answers are labelled bad"
        yield f"{split}: left out {bad:,} of {rows}, {why}"
    if pairs := found.equal_pairs.count:
        yield (
            f"{split}: {_of_pairs(pairs, found)} {'has' if pairs == 1 else 'have'} equal answers, from which nothing "
            f"is learned, such as {found.equal_pairs.place}"
        )
    if count := found.worse_chosen.count:
        yield (
            f"{split}: {_of_pairs(count, found)} {'gives' if count == 1 else 'give'} the chosen answer a lower score "
            f"than the rejected one, such as {found.worse_chosen.place}"
        )
    if count := found.control.count:
        yield (
            f"{split}: {_rows(count)} {CONTROL[found.knows_control]}, such as "
            f"{found.control.what} in {found.control.place}"
        )
    if count := found.damaged.count:
        yield (
            f"{split}: {_rows(count)} signs of a text that was once read in a wrong encoding, such as "
            f"{found.damaged.what!r} in {found.damaged.place}"
        )
    if count := found.repeating.count:
        answers = count_text(count, "answer begins", "answers begin")
        yield f"{split}: {answers} with the question, which is learned again, such as {found.repeating.place}"
    if count := found.places.count:
        yield f"{split}: {_rows(count)} {PLACE} as a text, and no image, such as {found.places.place}"
    if count := found.contradicted.count:
        answers = count_text(count, "answer is", "answers are")
        yield f"{split}: {answers} labelled both good and bad, such as {found.contradicted.place}"
    if count := found.missing.count:
        answers = count_text(count, "answer is a text", "answers are texts")
        yield (
            f"{split}: {answers} that tools write for a missing value, such as {found.missing.what!r} in "
            f"{found.missing.place}"
        )


def _written(split: str, found: Collected) -> Iterator[str]:
    """In which scripts the rows are written, where some are not Latin; a tokenizer or model may not know them."""
    scripts = Counter({name or "no letters": count for name, count in found.scripts.items()})
    scripts["Latin"] += found.num_rows - scripts.total()
    if set(scripts) <= {"Latin", "no letters"}:
        return
    shown = [f"{name} {_share(count, found.num_rows)}" for name, count in scripts.most_common(6) if count]
    yield f"{split}: the rows are written in {', '.join(shown)} (the script of most letters)"


def _share(count: int, total: int) -> str:
    share = count / total
    return f"{share:.0%}" if share >= 0.01 else f"({count_text(count, 'row')})"


def _of_pairs(count: int, found: Collected) -> str:
    return f"{count:,} of {count_text(found.num_rows, 'preference pair')}"


def _rows(count: int) -> str:
    return count_text(count, "row holds", "rows hold")


def _duplicates(split: str, found: Collected, path: Path) -> Iterator[str]:
    """Rows that are there twice, and prompts that have several answers."""
    import numpy as np

    prompts, answers = np.asarray(found.prompts), np.asarray(found.answers)
    ordered = np.sort(prompts)  # a tenth of the time of `lexsort`, which only prompts that come again need
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(again):
        return
    rows = np.flatnonzero(np.isin(prompts, again))
    order = rows[np.lexsort((answers[rows], prompts[rows]))]
    same_prompt = prompts[order][1:] == prompts[order][:-1]
    same_answer = answers[order][1:] == answers[order][:-1]
    if num_same := int((same_prompt & same_answer).sum()):
        at = int(np.flatnonzero(same_prompt & same_answer)[0])
        are = count_text(num_same, "row is a duplicate of another", "rows are duplicates of others")
        yield f"{split}: {are}, such as {_places(path, order[at : at + 2])}"
    differ = same_prompt & ~same_answer
    if differ.any() and not found.has_pairs and not found.labels:
        of_prompt = np.concatenate(([0], np.cumsum(~same_prompt)))
        contradicted = np.bincount(of_prompt[1:], weights=differ, minlength=of_prompt[-1] + 1) > 0
        num_rows, num_prompts = int(contradicted[of_prompt].sum()), int(contradicted.sum())
        have = "the same prompt" if num_prompts == 1 else f"{num_prompts:,} prompts"
        at = int(np.flatnonzero(differ)[0])
        places = _places(path, order[at : at + 2])
        yield f"{split}: {count_text(num_rows, 'row')} have {have} and different answers, such as {places}"


def _balance(found: Collected, path: Path) -> Iterator[str]:
    """Whether the answers are a few classes of which one has nearly all rows."""
    if len(found.answers) < _MOST_CLASSES or _varied(found):
        return
    counts = Counter(islice(found.answers, _MOST_BALANCED))
    (key, most), total = counts.most_common(1)[0], sum(counts.values())
    answer = example_at(path, found.answers.index(key)).reference
    if most > total * _ONE_SIDED and answer:
        yield f"train: {most / total:.0%} of the answers are {answer[:_SHOWN_CHARS]!r}"
    elif len(counts) > 1 and answer and not found.labels:
        classes = [example_at(path, found.answers.index(each)).reference for each, _ in counts.most_common()]
        shares = [f"{count / total:.0%}" for _, count in counts.most_common(5)]
        shown = [f"{text[:_SHOWN_CHARS]!r} {share}" for text, share in zip(classes, shares, strict=False)]
        more = f", and {len(counts) - 5} more" if len(counts) > 5 else ""
        yield f"train: the answers are {len(counts)} classes: {', '.join(shown)}{more}"
        yield from _alike(classes)


def _varied(found: Collected) -> bool:
    """Whether the answers are more than a few classes, and none has nearly all rows."""
    import numpy as np

    ordered = np.sort(np.asarray(found.answers[:_MOST_BALANCED]))  # a sixth of the time of counting in Python
    begins = np.concatenate(([0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, [len(ordered)]))
    most = int(np.diff(begins).max())
    return len(begins) - 1 > _MOST_CLASSES and most <= len(ordered) * _ONE_SIDED


def _alike(classes: list[str]) -> Iterator[str]:
    """Classes that a person takes for one: they differ in case, in white space, or in how an accent is written."""
    found: dict[str, list[str]] = {}
    for text in classes:
        found.setdefault(" ".join(unicodedata.normalize("NFKC", text).casefold().split()), []).append(text)
    for texts in found.values():
        if len(texts) > 1:
            shown = ", ".join(ascii(each[:_SHOWN_CHARS]) for each in texts)
            yield f"train: {len(texts)} classes look the same and are learned as different ones: {shown}"


def _labels(found: Collected) -> Iterator[str]:
    """Whether KTO has answers of one kind alone, or nearly."""
    total = found.labels.total()
    for label, count in found.labels.items():
        if count > total * _ONE_SIDED:
            yield f"train: {count / total:.0%} of the answers are labelled {'good' if label else 'bad'}"


def _unused(splits: Mapping[str, Collected], used: Collection[str]) -> Iterator[str]:
    """Columns whose content no stage sees."""
    for split in ("train", "test"):
        if left := [each for each in splits[split].columns if each not in used] if split in splits else []:
            shown = ", ".join(each or "''" for each in left[:10]) + (", ..." if len(left) > 10 else "")
            yield f"{split}: the prompt does not use the column{'s' if len(left) > 1 else ''} {shown}"
            return


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
                f"{split}: {num_shared:,} of {count_text(len(mine), f'{split} row')} "
                f"{'is a training row' if num_shared == 1 else 'are training rows'}, such as {first}: "
                "scores on them say little"
            )


def lengths(found: Collected) -> dict[str, int]:
    """Characters of prompt and answer together, as percentiles: {"50": 120, ..., "longest": 900}."""
    import numpy as np

    if not found.num_chars:
        return {}
    values = np.percentile(np.asarray(found.num_chars), (*_PERCENTILES, 100), method="higher")
    names = (*map(str, _PERCENTILES), "longest")
    return {name: int(value) for name, value in zip(names, values, strict=True)}


def _places(path: Path, indices: Any) -> str:
    return " and ".join(example_at(path, int(index)).source for index in sorted(indices))


def example_at(path: Path, index: int) -> Example:
    """The example of that number in a file."""
    with path.open("rb") as file:
        return Example.from_json(next(islice(file, index, None)))
