"""Which rows of a file of examples are kept, and in which split: samples, and splits held out of the training rows."""

from __future__ import annotations

import hashlib
import json
import random
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from runner.text import count_text
from stages.data.example import BadRowError
from stages.data.prompt import as_text, cell, has
from stages.data.split_column import NONE, split_of_row
from stages.ingest.rows.collect import Collected, Found
from stages.sections.dataset import Dataset, HeldOut

_NEARLY = 0.9
_PLACED_BYTES = 1 << 20
_START = b'{"id": "'
TRAIN, VAL, TEST = 0, 1, 2
NAMES = ("train", "val", "test", NONE)


class Groups:
    """What stays in one split: rows of a group, and rows with the same prompt. Fed with the examples in order."""

    def __init__(self, rule: HeldOut, seed: int) -> None:
        self._rule = rule
        self._seed = str(rule.seed if rule.seed is not None else seed).encode()
        self.prompts: array[int] = array("Q")
        self.groups: array[int] = array("Q")
        self.strata: list[str] = []
        self.named = bytearray()

    def add(self, prompt: str, columns: Mapping[str, Any]) -> None:
        """Note the next example, by the text that tells its prompt apart and its columns.

        Raises BadRowError when it lacks a column that the rule names.
        """
        rule = self._rule
        if rule.column is not None:
            self.named.append(NAMES.index(split_of_row(rule, columns)))
            return
        group = None if rule.by == "hash" else self._hash(f"{rule.by}\0{self._column(columns, rule.by)}")
        stratum = None if rule.stratify is None else self._column(columns, rule.stratify)
        self.prompts.append(self._hash(prompt.rstrip()))
        if group is not None:
            self.groups.append(group)
        if stratum is not None:
            self.strata.append(stratum)

    def merge(self, later: Groups) -> None:
        """Add examples that come after these."""
        self.prompts.extend(later.prompts)
        self.groups.extend(later.groups)
        self.strata.extend(later.strata)
        self.named.extend(later.named)

    def parts(self) -> bytearray:
        """Each example's split, as an index of NAMES."""
        return self.named if self._rule.column is not None else assign(self._rule, self.root_keys(), self.strata)

    def count(self) -> int:
        """How many groups there are of rows that stay together."""
        return len(set(self.root_keys())) if self._rule.column is None else 0

    def root_keys(self) -> list[int]:
        """Each example's key: equal for those that stay together."""
        if self._rule.by == "hash":
            return list(self.prompts)
        above: dict[int, int] = {}
        for prompt, group in zip(self.prompts, self.groups, strict=True):
            above[_root(above, prompt)] = _root(above, group)
        return [_root(above, group) for group in self.groups]

    def _hash(self, text: str) -> int:
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=self._seed[:64])
        return int.from_bytes(digest.digest(), "big")

    def _column(self, columns: Mapping[str, Any], name: str) -> str:
        value = cell(columns, name)
        try:
            if value is not None:
                return as_text(value)
        except BadRowError as error:
            raise BadRowError(f"column {name!r}, which dataset.split names, {error.why}", "Name another one.") from None
        why = "is null" if has(columns, name) else "is missing"
        raise BadRowError(f"column {name!r}, which dataset.split names, {why}", "Give the row one, or name another.")


def _root(above: dict[int, int], key: int) -> int:
    while (next_key := above.get(key, key)) != key:
        above[key] = above.get(next_key, next_key)
        key = next_key
    return key


def assign(rule: HeldOut, keys: Sequence[int], strata: Sequence[str]) -> bytearray:
    """The split of each row: TRAIN, VAL or TEST. Groups are drawn by their hashed keys until a split is full."""
    found = bytearray(len(keys))
    members: dict[int, list[int]] = {}
    for index, key in enumerate(keys):
        members.setdefault(key, []).append(index)
    layers: dict[str, list[int]] = {}
    for key in sorted(members):
        layers.setdefault(strata[members[key][0]] if strata else "", []).append(key)
    for part, wanted in ((TEST, rule.test), (VAL, rule.val)):
        owed = 0.0
        for layer in sorted(layers):
            size = sum(len(members[key]) for key in layers[layer])
            owed += _number(wanted, len(keys)) * size / max(1, len(keys))
            owed -= _fill(part, round(owed), layers[layer], members, found)
    return found


def _number(wanted: float | None, total: int) -> float:
    return 0 if wanted is None else wanted * total if isinstance(wanted, float) else wanted


def _fill(part: int, wanted: int, keys: Sequence[int], members: Mapping[int, list[int]], found: bytearray) -> int:
    """Put whole groups into the split until it has that many rows. Returns how many it has."""
    count = 0
    for key in keys:
        rows = members[key]
        if count >= wanted:
            break
        if found[rows[0]] == TRAIN and (count + len(rows) <= wanted):
            for row in rows:
                found[row] = part
            count += len(rows)
    return count


def fewer_than_asked(rule: HeldOut, found: Mapping[str, Collected]) -> Iterator[str]:
    """One line for each split that has notably fewer rows than the rule asks for, since whole groups go to a split."""
    total = sum(each.num_rows for each in found.values())
    for split, share in (("val", rule.val), ("test", rule.test)):
        wanted = round(_number(share, total))
        if rule.column is None and share is not None and found[split].num_rows < wanted * _NEARLY:
            kept = "the same prompt" if rule.by == "hash" else f"the same prompt or {rule.by}"
            yield (
                f"{split}: has {count_text(found[split].num_rows, 'row')} and not {wanted:,} as dataset.split.{split} "
                f"asks: rows with {kept} stay in one split"
            )


def hold_out(rule: HeldOut, groups: Groups, collected: Collected, paths: Mapping[str, Path]) -> dict[str, Collected]:
    """Move rows of the training examples' file into the other splits'. Raises RunnerError for an empty split."""
    parts = groups.parts()
    wanted = _wanted(rule, parts, groups.count())
    whole = paths["train"].with_name(".all.jsonl")
    paths["train"].replace(whole)
    for part in wanted:
        copy_rows(whole, paths[NAMES[part]], NAMES[part], lambda index, part=part: parts[index] == part)  # type: ignore[misc]
    whole.unlink()
    return {NAMES[part]: _only(collected, [each == part for each in parts], part) for part in wanted}


def _wanted(rule: HeldOut, parts: bytearray, num_groups: int) -> list[int]:
    """The splits to write. Raises RunnerError for one that is asked for and has no row."""
    if rule.column is not None:
        if TRAIN not in parts:
            hint = "Name another column, or say in dataset.split.values which of its values mean train."
            raise RunnerError(f"dataset.split.column={rule.column} names no row's split train", hint)
        return [part for part in (TRAIN, VAL, TEST) if part in parts]
    wanted = [TRAIN] + [part for part, share in ((VAL, rule.val), (TEST, rule.test)) if share is not None]
    for part in wanted:
        if part not in parts:
            words = f"dataset.split leaves the {NAMES[part]} split without a row of {len(parts):,}"
            raise RunnerError(words, _why_empty(rule, part, num_groups))
    return wanted


def _why_empty(rule: HeldOut, part: int, num_groups: int) -> str:
    """What to do about a split without a row. num_groups: rows that stay together count as one."""
    same = "the same prompt" if rule.by == "hash" else f"the same prompt or {rule.by}"
    groups = "all rows are one such group" if num_groups == 1 else f"there are {num_groups:,} such groups"
    few = f"Rows with {same} stay in one split, and {groups}. "
    share = "smaller" if part == TRAIN else "larger"
    key = "dataset.split.val or test" if part == TRAIN else f"dataset.split.{NAMES[part]}"
    return f"{few}Give a {share} {key}, rows that differ more, or files for the splits (dataset.files)."


def _only(collected: Collected, keep: Sequence[bool], part: int) -> Collected:
    kept = kept_of(collected, keep)
    if part != TRAIN:
        kept.num_bad, kept.kinds = 0, {}
        kept.equal_pairs, kept.worse_chosen, kept.control, kept.missing = Found(), Found(), Found(), Found()
        kept.repeating, kept.places = Found(), Found()
    return kept


def kept_of(collected: Collected, keep: Sequence[bool]) -> Collected:
    """What became of the rows that are kept; the bad ones are still counted."""

    def only(name: str, code: str) -> Any:
        return array(code, compress(getattr(collected, name), keep))

    return replace(
        collected, num_rows=sum(keep), prompts=only("prompts", "Q"), answers=only("answers", "Q"),
        num_chars=only("num_chars", "I"),
    )  # fmt: skip


def sample(path: Path, split: str, limit: int, seed: int, collected: Collected) -> Collected:
    """Keep that many rows of the file, drawn by the seed, in their order."""
    drawn = random.Random(f"{seed}-{split}").sample(range(collected.num_rows), limit)  # noqa: S311
    keep = [False] * collected.num_rows
    for index in drawn:
        keep[index] = True
    return _keep(path, split, keep, collected)


def only_good(path: Path, split: str, collected: Collected) -> Collected:
    """Keep the rows of the file whose answers are not labelled bad (KTO): no prediction is to be equal to one."""
    with path.open("rb") as lines:
        keep = [json.loads(line).get("label") is not False for line in lines]
    return replace(_keep(path, split, keep, collected), num_bad_answers=keep.count(False))


def _keep(path: Path, split: str, keep: Sequence[bool], collected: Collected) -> Collected:
    """Leave the other rows out of the file, and out of what became of its rows."""
    whole = path.with_name(".all.jsonl")
    path.replace(whole)
    copy_rows(whole, path, split, lambda index: keep[index])
    whole.unlink()
    return kept_of(collected, keep)


def copy_rows(source: Path, target: Path, split: str, keep: Callable[[int], bool]) -> None:
    """Copy the examples that are kept, numbered again in their order."""
    count = 0
    with source.open("rb") as lines, target.open("wb") as out:
        for index, line in enumerate(lines):
            if keep(index):
                end = line.index(b'"', len(_START))
                out.write(b"%s%s-%06d%s" % (_START, split.encode(), count, line[end:]))
                count += 1


def place_rows(piece: Path, whole: Path, split: str, start: int, offset: int) -> None:
    """Write the examples of a piece, numbered from `start`, at their place in the whole file of their split."""
    begin = b"%s%s-" % (_START, split.encode())
    with piece.open("rb") as lines, whole.open("r+b", _PLACED_BYTES) as out:
        out.seek(offset)
        for count, line in enumerate(lines, start):
            out.write(b"%s%06d%s" % (begin, count, line[line.index(b'"', len(begin)) :]))


def digits_below(count: int) -> int:
    """Characters that the numbers of the first `count` examples have in their ids."""
    return sum(max(0, count - least) for least in (*[0] * 6, *(10**power for power in range(6, 12))))


def samples(dataset: Dataset) -> bool:
    """Whether `max_rows` uses a sample rather than the first rows."""
    by = dataset.max_rows_by or ("head" if dataset.source.startswith("generated://") else "sample")
    return by == "sample"
