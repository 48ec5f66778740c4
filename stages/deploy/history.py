"""Which deploys a recipe has had, by the records that each left in the folder of its run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runner.errors import RunnerError, UsageError
from runner.pipeline.runs import run_folders
from runner.storage.atomic import read_state

DEPLOYED = "deployed"
RECORD = "deploy.json"


@dataclass(frozen=True)
class Deployed:
    """A deploy that was successful. run: folder of the run whose adapter it serves. at: seconds since the epoch."""

    run: Path
    adapters: tuple[str, ...]
    address: str
    at: float


def deploys(root: Path, recipe: str, address: str) -> list[Deployed]:
    """Those of the recipe's runs on the cluster of that address, the newest first. Raises RunnerError."""
    found = [each for folder in run_folders(root, recipe) for each in _of_run(folder) if each.address == address]
    return sorted(found, key=lambda each: -each.at)


def _of_run(folder: Path) -> Iterator[Deployed]:
    """Raises RunnerError for a record that is damaged, or another's: without it a rollback would lead elsewhere."""
    for path in sorted(folder.glob(f"deploy/*/{RECORD}")):
        record = read_state(path)
        if record.get("place") != place_of(path.parent):
            raise RunnerError(f"{path} is the record of another deploy", "Restore it, or remove it and run again.")
        if record["outcome"] == DEPLOYED:
            adapters = tuple(map(str, record["adapters"]))
            yield Deployed(folder, adapters, str(record["address"]), float(record["at"]))


def place_of(folder: Path) -> str:
    """The run and the folder of one of its deploys, which its record names."""
    return f"{folder.parent.parent.name}/{folder.name}"


def before_the_present(root: Path, recipe: str, address: str) -> Path:
    """The run that was served before the present one. Raises UsageError when there is none."""
    found = deploys(root, recipe, address)
    earlier = next((each for each in found[1:] if each.adapters[:1] != found[0].adapters[:1]), None)
    if earlier is None:
        known = f"only {found[0].run.name}" if found else "none"
        raise UsageError(
            f"{recipe} was served at {address} by no other run before: there is {known}",
            "Name the run that is to be served: deploy runs=[ID].",
        )
    return earlier.run
