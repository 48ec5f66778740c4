"""A folder of runs that was moved or copied keeps its results: each is known by its content."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from runner.cli.main import main
from runner.errors import EXIT_DONE
from runner.pipeline.manifest import Manifest
from runner.pipeline.runs import find_run
from runner.storage.artifact import Artifact


def run(root: Path, fake_stages: Any) -> list[str]:
    """The stages that run, and are not reused, for the recipe below that root."""
    fake_stages.runs.clear()
    assert main(["run", "recipe=viggo_quickstart", f"storage.root={root}", f"storage.cache={root}/cache"]) == EXIT_DONE
    return list(fake_stages.runs)


@pytest.fixture
def root(fake_stages: Any, tmp_path: Path) -> Path:
    root = tmp_path / "before"
    assert "train" in run(root, fake_stages)
    return root


def test_results_below_a_root_that_was_moved_are_reused(root: Path, fake_stages: Any) -> None:
    now = root.with_name("after")
    root.rename(now)
    for artifact in (each for record in Manifest.load(find_run(now, "latest")).stages for each in record.artifacts):
        assert artifact.kind == "endpoint" or artifact.path.is_relative_to(now)
    assert not {"ingest", "train", "infer"}.intersection(run(now, fake_stages))


def test_a_file_that_was_not_moved_with_the_rest_is_made_again(root: Path, fake_stages: Any) -> None:
    now = root.with_name("after")
    root.rename(now)
    (adapter,) = (each for each in Manifest.load(find_run(now, "latest")).stages if each.name == "train")
    for artifact in adapter.artifacts:
        shutil.rmtree(artifact.path)
    again = run(now, fake_stages)
    assert "train" in again
    assert "ingest" not in again


def test_a_file_that_was_changed_on_its_way_is_not_reused(root: Path, fake_stages: Any) -> None:
    now = root.with_name("after")
    shutil.copytree(root, now, symlinks=True)
    shutil.rmtree(root)
    (ingest,) = (each for each in Manifest.load(find_run(now, "latest")).stages if each.name == "ingest")
    entry = ingest.artifacts[0].files[0]
    (ingest.artifacts[0].path / entry.path).write_bytes(b"x" * entry.size_bytes)
    assert "ingest" in run(now, fake_stages)


def test_what_lies_elsewhere_stays_there(tmp_path: Path) -> None:
    folder = tmp_path / "after" / "mine" / "20260101-120000-abcdef"
    own = Artifact(name="adapter", uri=f"{tmp_path}/before/mine/{folder.name}/train/adapter", sha256="a")
    far = Artifact(name="model", uri="/elsewhere/model", sha256="b")
    store = Artifact(name="published", uri="s3://bucket/adapter", sha256="c")
    (folder / "train" / "adapter").mkdir(parents=True)
    stages = [{"name": "train", "status": "done", "artifacts": [own, far, store]}]
    Manifest.model_validate({"run_id": folder.name, "recipe": "mine", "stages": stages}).save(folder)
    found = [artifact.uri for artifact in Manifest.load(folder).stages[0].artifacts]
    assert found == [str(folder / "train" / "adapter"), far.uri, store.uri]
