"""What is told of rows that cannot be used: one line a kind, and whether the run may leave them out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from runner.errors import RunnerError
from runner.storage.atomic import write_text
from runner.text import count_text
from stages.ingest.rows.collect import Collected, Kind
from stages.sections.dataset import Dataset

_MOST_LINES = 10


def judge(dataset: Dataset, splits: Mapping[str, Collected]) -> None:
    """Raise RunnerError for bad rows that the recipe does not skip, for too many, and for a split without rows."""
    for split, found in splits.items():
        if not found.num_rows:
            _refuse_empty(dataset, split, found)
    num_bad = sum(found.num_bad for found in splits.values())
    if num_bad and dataset.on_bad_row == "fail":
        raise RunnerError(
            f"{_counted(num_bad)} in dataset.source={dataset.source}:{_shown(splits)}", _fixes(dataset, splits)
        )
    for split, found in splits.items():
        share = found.num_bad / max(1, found.num_bad + found.num_rows)
        if share > dataset.max_bad_share:
            raise RunnerError(
                f"{_counted(found.num_bad)} are {share:.1%} of the {split} split of dataset.source={dataset.source}, "
                f"more than dataset.max_bad_share={dataset.max_bad_share:g}:{_shown({split: found})}",
                _fixes(dataset, {split: found}, skipping=False),
            )


def _refuse_empty(dataset: Dataset, split: str, found: Collected) -> None:
    if found.num_bad:
        raise RunnerError(
            f"dataset.source={dataset.source} has no usable row in its {split} split, of {found.num_bad:,}:"
            f"{_shown({split: found})}",
            _fixes(dataset, {split: found}, skipping=False),
        )
    raise RunnerError(
        f"dataset.source={dataset.source} has no row in its {split} split",
        f"Name a file with rows in dataset.files.{split}, or set dataset.files.{split}=null.",
    )


def _counted(number: int) -> str:
    return count_text(number, "bad row")


def lines(splits: Mapping[str, Collected]) -> list[str]:
    """One line a kind, the most frequent first: how many, why, and where the first are."""
    kinds = [kind for found in splits.values() for kind in found.kinds.values()]
    return [_line(kind) for kind in sorted(kinds, key=lambda kind: -kind.count)]


def _line(kind: Kind) -> str:
    if kind.count == 1:
        return f"{kind.places[0]}: {kind.why}"
    more = ", ..." if kind.count > len(kind.places) else ""
    return f"{count_text(kind.count, 'row')} ({', '.join(kind.places)}{more}): {kind.why}"


def _shown(splits: Mapping[str, Collected]) -> str:
    found = lines(splits)
    more = f"\n  and {count_text(len(found) - _MOST_LINES, 'more kind')}" if len(found) > _MOST_LINES else ""
    return "".join(f"\n  {line}" for line in found[:_MOST_LINES]) + more


def _fixes(dataset: Dataset, splits: Mapping[str, Collected], skipping: bool = True) -> str:
    """What to do about the most frequent kinds. Skipping is named only where few rows are bad."""
    kinds = sorted((kind for found in splits.values() for kind in found.kinds.values()), key=lambda kind: -kind.count)
    fixes = list(dict.fromkeys(kind.fix for kind in kinds if kind.fix))[:2] or ["Correct the rows."]
    few = all(found.num_bad <= dataset.max_bad_share * (found.num_bad + found.num_rows) for found in splits.values())
    if skipping and few:
        fixes.append("Or leave them out with dataset.on_bad_row=skip.")
    return " ".join(fixes)


def skipped(splits: Mapping[str, Collected], folder: Path) -> list[str]:
    """Remarks about rows that were left out, whose kinds are listed in `skipped_rows.txt`."""
    num_bad = sum(found.num_bad for found in splits.values())
    if not num_bad:
        return []
    path = folder / "skipped_rows.txt"
    write_text(path, "".join(f"{line}\n" for line in lines(splits)))
    share = num_bad / (num_bad + sum(found.num_rows for found in splits.values()))
    return [f"left out {_counted(num_bad)} ({share:.2%}); their kinds are listed in {path}"]
