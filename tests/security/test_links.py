"""Links in a store that somebody else can write to, there before it is used or put there meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.errors import DamagedError, RunnerError
from runner.storage import local
from runner.storage.artifact import Artifact, scan_folder
from runner.storage.local import FolderBlobs
from runner.storage.store import SET_MANIFEST, Store, open_store


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of the user's, with a file that has not changed for years."""
    (tmp_path / "outside" / "a").mkdir(parents=True)
    for file in ("thesis.txt", "weights", "a/weights"):
        (tmp_path / "outside" / file).write_text("mine")
        os.utime(tmp_path / "outside" / file, (1e9, 1e9))
    return tmp_path / "outside"


@pytest.fixture
def made(tmp_path: Path) -> Artifact:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "weights").write_text("weights")
    return scan_folder("made", tmp_path / "made")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "store").mkdir()
    return open_store(str(tmp_path / "store"))


def content_of(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


MINE = dict.fromkeys(("thesis.txt", "weights", "a/weights"), "mine")


@pytest.mark.parametrize("leads", ["outside", "inside"])
def test_a_link_in_place_of_the_folder_of_unfinished_files_is_refused(
    leads: str, store: Store, made: Artifact, outside: Path
) -> None:
    """Publishing removes what is a day old there."""
    there = outside if leads == "outside" else Path(store.uri) / "kept"
    there.mkdir(exist_ok=True)
    (there / "0123456789abcdef0123456789abcdef").write_text("mine")
    os.utime(there / "0123456789abcdef0123456789abcdef", (1e9, 1e9))
    (Path(store.uri) / ".partial").symlink_to(there)
    with pytest.raises(RunnerError, match=r"\.partial is a link"):
        store.publish(made, "a", "adapter")
    assert (there / "0123456789abcdef0123456789abcdef").read_text() == "mine"
    assert content_of(outside).items() >= MINE.items()


def test_a_link_within_the_store_is_followed(store: Store, made: Artifact, tmp_path: Path) -> None:
    (Path(store.uri) / "large").mkdir()
    (Path(store.uri) / "a").symlink_to("large")
    store.publish(made, "a", "adapter")
    assert store.fetch("a", tmp_path / "fetched").files == made.files
    assert (Path(store.uri) / "large" / "weights").is_file()


def test_links_that_lead_to_each_other_are_refused_in_a_sentence(store: Store) -> None:
    (Path(store.uri) / "a").symlink_to("b")
    (Path(store.uri) / "b").symlink_to("a")
    with pytest.raises(DamagedError, match="through a link"):
        store.exists("a")


# What leads out of the store may come between the look at the path and its use.


def after_the_look(monkeypatch: pytest.MonkeyPatch, store: Store, swap: Callable[[], Any]) -> None:
    """Have `swap` called once, when it is known where a path in the store leads."""
    real, left = Path.resolve, [swap]

    def then_swap(self: Path, strict: bool = False) -> Path:
        found = real(self, strict)
        if left and str(self).startswith(f"{store.uri}/a"):
            left.pop()()
        return found

    monkeypatch.setattr(Path, "resolve", then_swap)


OPERATIONS: dict[str, Callable[[FolderBlobs, Path], Any]] = {
    "read": lambda blobs, folder: blobs.read("a/weights"),
    "fetch": lambda blobs, folder: blobs.get_file("a/weights", folder / "got", lambda count: None, lambda: None),
    "write": lambda blobs, folder: blobs.put_file(folder / "made" / "weights", "a/weights", lambda count: None),
    "write new": lambda blobs, folder: blobs.put_new(b"weights", "a/new"),
    "delete": lambda blobs, folder: blobs.delete(["a/weights"]),
}


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_folder_that_became_a_link_meanwhile_is_not_followed(
    operation: str, store: Store, outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = FolderBlobs(Path(store.uri))
    blobs.put_new(b"weights", "a/weights")
    folder = Path(store.uri) / "a"

    def swap() -> None:
        folder.rename(tmp_path / "put-aside")
        folder.symlink_to(outside)

    after_the_look(monkeypatch, store, swap)
    with pytest.raises(DamagedError, match="is a link"):
        OPERATIONS[operation](blobs, tmp_path)
    assert content_of(outside) == MINE
    assert not (tmp_path / "got").exists()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_file_that_became_something_else_meanwhile_is_not_read(
    kind: str, store: Store, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs, path = FolderBlobs(Path(store.uri)), Path(store.uri) / "a" / "weights"
    blobs.put_new(b"weights", "a/weights")
    put = {
        "link": lambda: path.symlink_to(outside / "thesis.txt"),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
    }
    after_the_look(monkeypatch, store, lambda: (path.unlink(), put[kind]()))
    if kind == "link":
        with pytest.raises(DamagedError, match="became a link"):
            blobs.read("a/weights")
    else:
        assert blobs.read("a/weights") is None


def test_what_replaces_or_removes_a_file_does_so_to_a_link_and_not_to_what_it_leads_to(
    store: Store, made: Artifact, outside: Path
) -> None:
    stored = store.publish(made, "a", "adapter")
    weights = Path(store.uri) / "a" / "weights"
    weights.unlink()
    weights.symlink_to(outside / "weights")
    with pytest.raises(RunnerError):
        store.fetch(stored, outside.parent / "fetched")
    store.publish(made, "a", "adapter")  # repairs it
    assert (weights.is_symlink(), weights.read_text()) == (False, "weights")
    weights.unlink()
    weights.symlink_to(outside / "weights")
    store.delete_set(stored)
    assert not weights.is_symlink()
    assert content_of(outside) == MINE


def test_a_manifest_of_any_size_is_not_read_into_memory(
    store: Store, made: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.publish(made, "a", "adapter")
    monkeypatch.setattr(local, "MOST_READ_BYTES", 100)
    (Path(store.uri) / "a" / SET_MANIFEST).write_bytes(b" " * 101)
    with pytest.raises(DamagedError, match="is larger than"):
        store.exists("a")
