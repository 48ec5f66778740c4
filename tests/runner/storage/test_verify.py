"""Damage of local files is found by their content, and a large file is read once on a machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.storage import verify
from runner.storage.artifact import Artifact, scan_folder
from runner.storage.store import SET_MANIFEST, open_store
from runner.storage.verify import Digests, damage


@pytest.fixture
def artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    """Two files, both above the size that is always read."""
    monkeypatch.setattr(verify, "_ALWAYS_READ_BYTES", 4)
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"0123456789")
    (folder / "b.bin").write_bytes(b"abcdefghij")
    return scan_folder("thing", folder)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read."""
    names: list[str] = []
    real = verify.digest_file
    monkeypatch.setattr(verify, "digest_file", lambda path: names.append(path.name) or real(path))
    return names


def overwrite(path: Path, content: bytes) -> None:
    """Same size, same time of change: what a disk that loses bits, or a careful copy, leaves."""
    stat = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_file_is_read_once_and_again_when_it_changes(artifact: Artifact, read: list[str], tmp_path: Path) -> None:
    assert damage(artifact, Digests(tmp_path / "memory")) == ""
    assert sorted(read) == ["a.bin", "b.bin"]
    assert damage(artifact, Digests(tmp_path / "memory")) == ""
    assert len(read) == 2
    overwrite(artifact.path / "a.bin", b"0123456780")
    assert damage(artifact, Digests(tmp_path / "memory")) == (
        f"thing is damaged: the content of {artifact.path / 'a.bin'} has changed"
    )


def test_every_machine_reads_the_files_itself(
    artifact: Artifact, read: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for node in ("one", "two", "one"):
        monkeypatch.setattr("platform.node", lambda node=node: node)
        assert damage(artifact, Digests(tmp_path / "memory")) == ""
    assert len(read) == 4


def test_small_files_are_read_each_time(
    artifact: Artifact, read: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "_ALWAYS_READ_BYTES", 100)
    for _ in range(2):
        assert damage(artifact, Digests(tmp_path / "memory")) == ""
    assert len(read) == 4


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"x": 1, "self_sha256": "0"}'])
def test_a_damaged_memory_is_forgotten(artifact: Artifact, content: bytes, tmp_path: Path) -> None:
    damage(artifact, Digests(tmp_path / "memory"))
    (memory,) = (tmp_path / "memory").iterdir()
    memory.write_bytes(content)
    assert damage(artifact, Digests(tmp_path / "memory")) == ""


def test_a_place_that_cannot_be_written_to_changes_nothing(artifact: Artifact) -> None:
    assert damage(artifact, Digests(Path("/proc/nowhere"))) == ""


def test_what_is_cut_or_gone_is_reported(artifact: Artifact, tmp_path: Path) -> None:
    (artifact.path / "a.bin").write_bytes(b"0123")
    assert "has 4 bytes, not 10" in damage(artifact, Digests(None))
    (artifact.path / "a.bin").unlink()
    assert "thing is gone" in damage(artifact, Digests(None))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("harm", ["gone", "cut", "pipe"])
def test_a_set_of_a_store_without_its_manifest_is_incomplete(artifact: Artifact, harm: str, tmp_path: Path) -> None:
    published = open_store(str(tmp_path / "store")).publish(artifact, "a", "thing")
    assert damage(published, Digests(None)) == ""
    manifest = published.path / SET_MANIFEST
    content = manifest.read_bytes()
    manifest.unlink()
    if harm == "cut":
        manifest.write_bytes(content[:-5])
    elif harm == "pipe":
        os.mkfifo(manifest)
    assert "thing is incomplete" in damage(published, Digests(None))
