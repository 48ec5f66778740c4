"""What `init` proposes: everything that the recipe says, from what was seen of the data."""

from __future__ import annotations

import math
import re
from collections import Counter as Counts
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from runner.errors import RunnerError
from runner.text import count_text
from stages.data.example import BadRowError, Example
from stages.data.prompt import only_column
from stages.data.shapes.convert import make_example
from stages.data.sources import Wanted, open_splits
from stages.ingest.rows.bad_rows import lines as bad_lines
from stages.ingest.rows.collect import Collected, Kind, Watch, collect
from stages.ingest.rows.remarks import remarks as data_remarks
from stages.init.columns import columns_of, headless
from stages.init.found import Found
from stages.init.labels import MOST_LISTED, label_remarks, label_system, labels_of
from stages.init.lengths import MESSAGE_TOKENS, ROW_TOKENS, Counter, Limits, limits_of
from stages.init.read_back import CALLS, PARTS, Keys, keys_for
from stages.init.shape import Shape, shape_of
from stages.init.splits import split_for
from stages.init.target import Target
from stages.sections.dataset import Dataset

MOST_ROWS = 20_000
_MOST_BAD = 0.5
_SEED = 42
_CHATML = "<|im_start|>"
_UNKNOWN_KEY = re.compile(r"Remove it, or name it in dataset\.ignore_keys=\[([\w-]+)\]\.")
_UNKNOWN_ROLE = re.compile(r"has the role '([\w -]+)'; there are: ")
_ROLES = {
    **dict.fromkeys(("customer", "client", "visitor", "guest", "caller", "patient", "student", "buyer"), "user"),
    **dict.fromkeys(("agent", "operator", "support", "advisor", "representative", "seller", "staff"), "assistant"),
}
"""Whose part those play who are called so in chats of a service."""
_RULE = re.compile(r"dataset\.prompt\.(consecutive|systems|assistant_first|unanswered)=(join|drop)")
Rows = list[tuple[str, "dict[str, Any] | BadRowError"]]


@dataclass(frozen=True)
class Proposal:
    """found, target, shape: what it is for. split: `dataset.split`. labels: the answers where they are labels.

    num_rows: good rows of each split that was read. bad_share: of the rows, those that cannot be used. whole: whether
    all rows were read. keys: for what answers have besides text. calls: whether a scored answer calls a tool. remarks:
    for the person, each one line.
    """

    found: Found
    target: Target
    shape: Shape
    columns: list[str]
    num_rows: dict[str, int]
    split: dict[str, Any]
    labels: list[str]
    limits: Limits
    exact: bool
    bad_share: float = 0.0
    whole: bool = True
    remarks: list[str] = field(default_factory=list)
    calls: bool = False
    keys: Keys = field(default_factory=Keys)

    @property
    def label_column(self) -> str | None:
        """The column of the labels; None where the answers are not labels, or not a column."""
        return only_column(self.shape.prompt.get("assistant") or "") if self.labels else None

    @property
    def max_bad_share(self) -> float:
        """What `dataset.max_bad_share` has to be for the bad rows: at least its default of 1 %."""
        return max(0.01, math.ceil(self.bad_share * 100 + 1) / 100)


def propose(
    found: Found, target: Target, tokenizer: Any = None, user: str | None = None, answer: str | None = None
) -> Proposal:
    """Read the rows and decide. tokenizer: of the model, where it is on this machine.

    Raises RunnerError when the rows cannot be read or used, or nothing tells what is asked and answered.
    """
    with TemporaryDirectory() as folder:
        rows = read(found, Path(folder))
        good = [row for _, row in rows["train"] if not isinstance(row, BadRowError)]
        if not good:
            raise RunnerError(
                f"data: {found.source} has no row that can be read{_first_bad(rows)}", "Correct the file."
            )
        shape, seen = _settled(found, shape_of(good, user, answer), rows, tokenizer, Path(folder))
    labels = labels_of(seen.answers) if shape.stage == "sft" else []
    extra = 0
    if labels and shape.kind == "prompt and completion" and "system" not in shape.prompt:
        system = label_system(labels)
        shape = replace(shape, prompt={"system": system, **shape.prompt})
        extra = seen.counter.tokens(system) + MESSAGE_TOKENS - ROW_TOKENS  # in place of the default one
    limits = limits_of(seen.counter.found, target.most_tokens, extra)
    num_rows = {split: each.num_rows for split, each in seen.splits.items()}
    share = _bad_share(found, seen.splits)
    made = Proposal(
        found, target, shape, columns_of(good), num_rows, {}, labels, limits, tokenizer is not None, share,
        all(len(each) <= MOST_ROWS for each in rows.values()),
    )  # fmt: skip
    chatml = tokenizer is not None and bool(tokenizer.token_to_id(_CHATML))
    split, keys = split_for(made, good), keys_for(seen.parts, target.source, chatml=chatml)
    lines = [
        *found.remarks,
        *filter(None, [headless(good)]),
        *_bad(seen.splits),
        *(f"messages have the key {key!r}, which nothing reads: it is left out" for key in shape.ignored),
        *(f"messages of {name!r} are read as the {role}'s, a guess by the name" for name, role in shape.roles.items()),
        *seen.remarks,
        *(label_remarks(seen.answers) if labels else []),
    ]
    lines += [*keys.remarks, *_of_limits(made)]
    return replace(made, split=split, keys=keys, calls=CALLS in seen.parts, remarks=lines)


def read(found: Found, folder: Path) -> dict[str, Rows]:
    """The first rows of each split, one more than MOST_ROWS where there are more."""
    placed = open_splits(Wanted(_dataset(found), found.splits, _SEED, folder), lambda done, total: None)
    return {split: list(islice(each, MOST_ROWS + 1)) for split, each in placed.items()}


def _dataset(found: Found, shape: Shape | None = None) -> Dataset:
    files = {split: list(names) for split, names in found.files.items()}
    given: dict[str, Any] = {"files": {"train": None, "val": None, "test": None, **files}} if files else {}
    if shape is not None:
        given |= {"prompt": shape.prompt, "ignore_keys": list(shape.ignored), "roles": shape.roles}
    return Dataset.model_validate({"source": found.source, **given})


@dataclass
class _Seen:
    """What became of the rows with a prompt. answers: each answer's number of rows. parts: of `PARTS`, in any row."""

    splits: dict[str, Collected]
    counter: Counter
    answers: Counts[str]
    parts: set[str]
    remarks: list[str]


def _settled(found: Found, shape: Shape, rows: Mapping[str, Rows], tokenizer: Any, folder: Path) -> tuple[Shape, _Seen]:
    """The shape with the rules that its conversations need, and what becomes of the rows then."""
    while True:
        seen = _seen(found, shape, rows, tokenizer, folder)
        kinds = [kind for each in seen.splits.values() for kind in each.kinds.values()]
        better = next((made for kind in kinds if (made := _corrected(shape, kind)) is not None), None)
        if better is None:
            return shape, seen
        shape = better


def _corrected(shape: Shape, kind: Kind) -> Shape | None:
    """The shape with what makes such rows usable: a rule, a key of messages left out, a role; None for others."""
    if (rule := _RULE.search(kind.fix)) and rule[1] not in shape.prompt:
        return replace(shape, prompt=shape.prompt | {rule[1]: rule[2]})
    if key := _UNKNOWN_KEY.fullmatch(kind.fix):
        return replace(shape, ignored=(*shape.ignored, key[1]))
    if (named := _UNKNOWN_ROLE.search(kind.why)) and (role := _ROLES.get(named[1].lower())):
        return replace(shape, roles={**shape.roles, named[1]: role})
    return None


def _seen(found: Found, shape: Shape, rows: Mapping[str, Rows], tokenizer: Any, folder: Path) -> _Seen:
    dataset, counter, answers = _dataset(found, shape), Counter(tokenizer), Counts[str]()
    parts = set[str]()
    paths = {split: folder / f"{split}.jsonl" for split in rows}

    def look(example: Example) -> None:
        counter.add(example)
        answers[example.reference] += 1
        parts.update(name for name, is_in in PARTS.items() if is_in(example))

    watch = Watch(on_example=look)
    splits = {
        split: collect(each, paths[split], (make_example(dataset, shape.stage, split), None), split, MOST_ROWS, watch)
        for split, each in rows.items()
    }
    return _Seen(splits, counter, answers, parts, data_remarks(splits, paths))


def _first_bad(rows: Mapping[str, Rows]) -> str:
    return next((f": {place}: {row.why}" for place, row in chain(*rows.values()) if isinstance(row, BadRowError)), "")


def _bad_share(found: Found, splits: Mapping[str, Collected]) -> float:
    """The largest share of a split's rows that cannot be used. Raises RunnerError when it is most of them."""
    share = max(each.num_bad / max(1, each.num_bad + each.num_rows) for each in splits.values())
    if share > _MOST_BAD or not splits["train"].num_rows:
        kinds = "".join(f"\n  {line}" for line in bad_lines(splits)[:5])
        fixes = [kind.fix for each in splits.values() for kind in each.kinds.values() if kind.fix]
        hint = " ".join(list(dict.fromkeys(fixes))[:2]) or "Correct the rows."
        raise RunnerError(f"data: {share:.0%} of the rows of {found.source} cannot be used:{kinds}", hint)
    return share


def _bad(splits: Mapping[str, Collected]) -> list[str]:
    return [f"cannot be used: {line}" for line in bad_lines(splits)]


def _of_limits(made: Proposal) -> list[str]:
    limits, lines = made.limits, []
    if limits.num_over:
        lines.append(
            f"{count_text(limits.num_over, 'row is', 'rows are')} longer than {limits.cutoff_len:,} tokens and will be "
            f"cut: the longest has {'' if made.exact else 'about '}{limits.longest:,}"
        )
    if not made.whole:
        lines.append(f"the first {MOST_ROWS:,} rows of each split were looked at, and not those after them")
    if len(made.labels) > MOST_LISTED:
        lines.append(f"there are {count_text(len(made.labels), 'label')}, too many to list in the prompt")
    return lines
