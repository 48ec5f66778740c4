"""generated://NAME?...: rows that are written or drawn here."""

from __future__ import annotations

from typing import Any, cast

from stages.data.generated import grammar, named
from stages.data.sources import Placed
from stages.sections.dataset import Dataset


def rows(dataset: Dataset, seed: int, split: str) -> Placed:
    """The split's rows, by the recipe's seed where the source names none."""
    spec = named.parse_uri(dataset.source, seed)
    generated: Any = named.generate(spec, cast(grammar.Split, split))
    return ((f"{split}:{number}", row) for number, row in enumerate(generated, 1))


def splits(dataset: Dataset, seed: int) -> dict[str, tuple[str, ...]]:
    """Splits that have rows."""
    spec = named.parse_uri(dataset.source, seed)
    return {split: (split,) for split in grammar.SPLITS if spec.num_rows(split)}
