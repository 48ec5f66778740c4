"""Artifacts of runs whose `storage.root` was moved or copied: they are where the root is now."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from runner.storage.artifact import Artifact


def root_before(artifacts: Iterable[Artifact], recipe: str, run_ids: Iterable[str]) -> Path | None:
    """The root that one of the artifacts was written below, by the folder of its run; None where none tells."""
    ids = list(run_ids)
    for artifact in artifacts:
        for run_id in ids:
            head, is_below, _ = artifact.uri.partition(f"/{recipe}/{run_id}/")
            if is_below and "://" not in head:
                return Path(head)
    return None


def below(root: Path, before: Path, artifact: Artifact) -> Artifact:
    """The artifact below the root of now, if it is there. Its digest is verified by whoever uses it, as any other's."""
    if "://" in artifact.uri or not Path(artifact.uri).is_relative_to(before):
        return artifact
    path = root / Path(artifact.uri).relative_to(before)
    return artifact.model_copy(update={"uri": str(path)}) if path.exists() else artifact
