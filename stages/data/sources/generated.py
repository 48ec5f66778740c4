"""generated://viggo?...: rows that a grammar writes."""

from __future__ import annotations

from typing import Any, cast

from stages.data.generated import grammar
from stages.data.sources import Placed
from stages.sections.dataset import Dataset


def rows(dataset: Dataset, seed: int, split: str) -> Placed:
    """The split's rows, by the recipe's seed where the source names none."""
    spec = grammar.parse_uri(dataset.source, seed)
    generated: Any = grammar.generate(spec, cast(grammar.Split, split))
    return ((f"{split}:{number}", row) for number, row in enumerate(generated, 1))


def splits(dataset: Dataset, seed: int) -> dict[str, tuple[str, ...]]:
    """Splits that have rows."""
    spec = grammar.parse_uri(dataset.source, seed)
    return {split: (split,) for split in grammar.SPLITS if spec.num_rows(split)}
