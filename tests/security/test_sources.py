"""A dataset.source that is a whole disk, a device, a link to elsewhere or endless: one sentence, nothing is read."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from runner.errors import RunnerError
from runner.testing import problems_of
from stages.data.generated.grammar import parse_uri
from stages.data.sources import base, local
from stages.data.sources.fetch import fetch_files, fetch_patterns
from tests.runner.recipes import changed

ROW = '{"instruction": "a", "output": "b"}\n'


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "test.jsonl").write_text(ROW)
    return folder


def found(source: Path | str, train: str) -> tuple[str, str]:
    """The problem that validate reports of the training file."""
    files = {"train": train, "val": None, "test": "test.jsonl"}
    reported = problems_of(changed({"dataset.source": str(source), "dataset.files": files}))
    problem = reported["dataset.files.train"]
    return problem.message, problem.hint


def test_a_pattern_over_a_disk_ends_at_a_number_of_files(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MOST_SEEN", 50)
    for number in range(60):
        (rows / f"{number}.bin").touch()
    message, hint = found(rows, "**/*")
    assert "more than 50 files below it" in message
    assert "Name the folder of the rows" in hint


def test_a_pattern_over_a_disk_ends_after_a_time(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "LOOK_S", -1.0)
    assert "were not enough to list its files" in found(rows, "**/*")[0]


def test_a_pattern_means_no_more_files_than_a_split_has(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MOST_FILES", 5)
    for number in range(6):
        (rows / f"part-{number}.jsonl").write_text(ROW)
    assert "part-* means 6 files, and a split has 5 at most" in found(rows, "part-*")[0]


def test_the_kernels_folders_are_passed_over_on_the_way(tmp_path: Path) -> None:
    assert not any(name.startswith(("proc/", "sys/")) for name in first(local.names_below(Path("/"), "/"), 2000))
    assert local._is_virtual(Path("/proc/self/environ"))
    assert not local._is_virtual(tmp_path)


def first(names: Any, count: int) -> list[str]:
    return [name for name, _ in zip(names, range(count), strict=False)]


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a link to a device", "the kernel's", "a link to the kernel's"])
def test_what_is_not_a_file_of_a_disk_is_refused_and_not_waited_for(kind: str, rows: Path) -> None:
    source, name = rows, "train.jsonl"
    if kind == "a pipe":
        os.mkfifo(rows / name)
    elif kind == "a device":
        source, name = Path("/dev"), "zero"
    elif kind == "the kernel's":
        source, name = Path("/proc/self"), "environ"
    else:
        (rows / name).symlink_to("/dev/zero" if kind == "a link to a device" else "/proc/self/environ")
    started = time.monotonic()
    assert "is not a file of a disk" in found(source, name)[0]
    with pytest.raises(RunnerError, match="is not a file of a disk"):
        fetch_files(str(source), [name], rows)
    assert time.monotonic() - started < 5


def test_a_link_out_of_the_folder_is_refused_with_the_folder_that_it_leads_to(rows: Path, tmp_path: Path) -> None:
    secret = tmp_path / "mine" / "secret.jsonl"
    secret.parent.mkdir()
    secret.write_text(ROW)
    (rows / "train.jsonl").symlink_to(secret)
    (rows / "linked").symlink_to(secret.parent)
    message, hint = found(rows, "train.jsonl")
    assert f"is a link to {secret}, which is outside" in message
    assert f"dataset.source={secret.parent}" in hint
    for name in ("train.jsonl", "tr*.jsonl", "linked/secret.jsonl"):
        with pytest.raises(RunnerError, match="is a link to"):
            fetch_patterns(str(rows), {"train": [name]}, tmp_path)


def test_links_within_the_folder_and_those_of_the_hubs_cache_are_followed(rows: Path, tmp_path: Path) -> None:
    (rows / "train.jsonl").symlink_to(rows / "test.jsonl")
    snapshot = tmp_path / "datasets--a--b" / "snapshots" / "abc"
    blob = snapshot.parent.parent / "blobs" / "123"
    for folder in (snapshot, blob.parent):
        folder.mkdir(parents=True)
    blob.write_text(ROW)
    (snapshot / "train.jsonl").symlink_to(blob)
    (tmp_path / "shortcut").symlink_to(rows)
    for source in (rows, snapshot, tmp_path / "shortcut"):
        assert fetch_files(str(source), ["train.jsonl"], tmp_path)["train.jsonl"].read_text() == ROW


@pytest.mark.parametrize("rows", ["1000001", "9" * 5000])
def test_a_generated_source_has_a_number_of_rows_that_ends(rows: str) -> None:
    with pytest.raises(RunnerError, match="train asks for more than 1,000,000 rows"):
        parse_uri(f"generated://viggo?train={rows}")
    assert parse_uri("generated://viggo?train=1000000").train == 1_000_000
