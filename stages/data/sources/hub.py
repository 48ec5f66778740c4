"""hf://org/name?config=...&revision=...&split=...: a dataset of the hub, streamed by the `datasets` library.

Mirror, token and offline mode come from the hub's own environment variables.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from runner.errors import RunnerError
from stages.data.readers.arrow import by_name, labels_of, plain
from stages.data.readers.filled import unfilled_row
from stages.data.sources import Placed
from stages.data.sources.hub_errors import explained
from stages.sections.dataset import Dataset

_LOOK_S = 5.0
KEYS = ("config", "revision", "split")


@dataclass(frozen=True)
class HubAddress:
    """A dataset of the hub. split: of the training rows, where dataset.files does not name it."""

    name: str
    config: str | None = None
    revision: str | None = None
    split: str | None = None


def parse_address(source: str) -> HubAddress:
    """The parts of an hf:// address. Raises RunnerError for a name or key that it cannot have."""
    name, _, query = source.removeprefix("hf://").partition("?")
    name = name.removeprefix("datasets/").strip("/")
    given = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := [key for key in given if key not in KEYS]:
        raise RunnerError(f"{source} has the unknown key {unknown[0]!r}", f"There are: {', '.join(KEYS)}.")
    if not name or name.count("/") > 1 or any(part in ("", ".", "..") for part in name.split("/")):
        hint = "Write hf://org/name."
        if name.count("/") > 1:
            org, dataset, file = name.split("/", 2)
            hint = (
                f"Write hf://{org}/{dataset}, or for one of its files "
                f"https://huggingface.co/datasets/{org}/{dataset}/resolve/main/{file}"
            )
        raise RunnerError(f"{source} names no dataset of the hub", hint)
    return HubAddress(name, **given)


def commit(source: str) -> str | None:
    """The commit that the address means on the hub now. Raises RunnerError when the hub does not answer."""
    from huggingface_hub import HfApi

    address = parse_address(source)
    try:
        return HfApi().dataset_info(address.name, revision=address.revision, timeout=_LOOK_S).sha
    except Exception as error:  # the client raises what the network and the hub's answers raise
        raise explained(source, "", error) from error


def rows(dataset: Dataset, seed: int, split: str) -> Placed:
    """The rows of a split, whose name on the hub dataset.files says. Raises RunnerError when they cannot be had."""
    address = parse_address(dataset.source)
    name = getattr(dataset.files, split)
    if not isinstance(name, str):
        raise RunnerError(f"dataset.files.{split} must name one split of {dataset.source}", "Write train, for example.")
    _check_hides_nothing(dataset.source, address.name)
    return _rows(dataset.source, address, name)


def _check_hides_nothing(source: str, name: str) -> None:
    """Raise RunnerError where the library would read something else than the hub: it prefers a folder of that name."""
    if Path(name).exists():
        hint = "Run from another folder, or write the folder's path in dataset.source."
        raise RunnerError(f"dataset.source={source}: {Path(name).absolute()} has the dataset's name", hint)


def _rows(source: str, address: HubAddress, split: str) -> Iterator[tuple[str, Any]]:
    import datasets

    try:
        found = datasets.load_dataset(
            address.name, address.config, revision=address.revision, split=split, streaming=True
        )
        labels = labels_of(found.features.to_dict() if found.features else None) or {}
        for number, row in enumerate(found, 1):
            yield f"{split}:{number}", by_name(unfilled_row(plain(row)), labels)
    except RunnerError:
        raise
    except Exception as error:  # the library raises what its loaders, the network and the hub's client raise
        if isinstance(error, datasets.exceptions.DatasetNotFoundError | ConnectionError):
            commit(source)  # tells more exactly why there is none
        raise explained(source, split, error) from error
