"""`dataset.split` as `init` proposes it: by a column that names splits, else by shares of the training rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from runner.errors import RunnerError
from stages.data.split_column import split_named

if TYPE_CHECKING:
    from stages.init.proposal import Proposal

_SPLIT_NAME = re.compile(r"(data_?)?(split|set|subset|fold|partition)(_name)?", re.IGNORECASE)
_USED = {"sft": ("val", "test"), "pt": ()}
"""Splits that are proposed for a training method; nothing is asked of a text. Of others the test split alone."""


def split_for(made: Proposal, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`dataset.split` for splits that have no file: a column's, shares of few rows, numbers of many."""
    if set(made.found.splits) == {"train"} and (column := _naming(rows, made.columns)):
        return {"column": column}
    total = made.num_rows["train"]
    wanted = {
        "val": 500 if total > 10_000 else 0.05 if total > 1000 else 0.1,
        "test": 1000 if total > 10_000 else 0.1 if total > 1000 else 0.2,
    }
    used = _USED.get(made.shape.stage, ("test",))
    split: dict[str, Any] = {name: wanted[name] for name in used if name not in made.found.splits}
    if split and total < 10:
        raise RunnerError(f"data: {made.found.source} has {total} usable rows, too few to hold some out", "Give more.")
    if split and made.label_column is not None:
        split["stratify"] = made.label_column
    return split


def _naming(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str | None:
    """The column that names each row's split in usual words, with train, val and test among them."""
    for name in (each for each in columns if _SPLIT_NAME.fullmatch(each)):
        values = [row.get(name) for row in rows]
        if {split_named(each) if isinstance(each, str) else None for each in values} == {"train", "val", "test"}:
            return name
    return None
