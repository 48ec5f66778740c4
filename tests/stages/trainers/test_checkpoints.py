"""What is left of an earlier attempt's checkpoints: the whole ones, and Ray Train's list of just these."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from stages.trainers import checkpoints as training_checkpoints
from stages.trainers.checkpoints import repair, seal

NAME = "tiny-0123"
Reported = list[list[tuple[str, dict[str, Any]]]]


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> Reported:
    """The lists that Ray Train was given."""
    made: Reported = []
    monkeypatch.setattr(training_checkpoints, "_tell_ray", lambda fs, home, checkpoints: made.append(checkpoints))
    return made


def checkpoint(root: Path, step: int, num_parts: int = 1) -> Path:
    folder = root / NAME / f"checkpoint_2026-01-01_00-00-{step:02d}.000"
    folder.mkdir(parents=True)
    (folder / "adapter").mkdir()
    (folder / "adapter" / "weights.safetensors").write_bytes(bytes(1000))
    (folder / "optimizer.pt").write_bytes(b"x" * step)
    for rank in range(num_parts):
        own = root / f"part-{rank}"
        own.mkdir()
        (own / f"rng-{rank}").write_text(str(step))
        for path in [own, *([folder] if rank == 0 else [])]:
            seal(path, rank, num_parts, {"step": step}, NAME)
        files = (own / f"seal-{rank}.json").read_bytes()
        if rank:
            (folder / f"seal-{rank}.json").write_bytes(files)
            (folder / f"rng-{rank}").write_text(str(step))
        for path in own.iterdir():
            path.unlink()
        own.rmdir()
    return folder


def names(reported: Reported) -> list[str]:
    return [name for name, _ in reported[-1]]


def test_whole_checkpoints_are_all_kept_in_order(tmp_path: Path, reported: Reported) -> None:
    folders = [checkpoint(tmp_path, step) for step in (5, 10)]
    assert repair(str(tmp_path), NAME) == []
    assert reported == [[(folder.name, {"step": step}) for folder, step in zip(folders, (5, 10), strict=True)]]


def test_without_an_earlier_attempt_there_is_nothing_to_repair(tmp_path: Path, reported: Reported) -> None:
    assert repair(str(tmp_path), NAME) == []
    assert reported == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["optimizer.pt", "adapter/weights.safetensors", "seal-0.json"])
@pytest.mark.parametrize("size", [0, 3, None])
def test_a_truncated_checkpoint_is_named_and_the_one_before_is_used(
    file: str, size: int | None, tmp_path: Path, reported: Reported
) -> None:
    """size: bytes that are left of the file; None: it is gone."""
    before, newest = checkpoint(tmp_path, 5), checkpoint(tmp_path, 10)
    data = (newest / file).read_bytes()
    (newest / file).unlink()
    if size is not None:
        (newest / file).write_bytes(data[:size])
    (reason,) = repair(str(tmp_path), NAME)
    assert reason.startswith(f"{newest.name}: {file}")
    assert names(reported) == [before.name]
    assert not newest.exists()


def test_a_changed_byte_is_found(tmp_path: Path, reported: Reported) -> None:
    newest = checkpoint(tmp_path, 10)
    (newest / "adapter" / "weights.safetensors").write_bytes(bytes(999) + b"1")
    assert repair(str(tmp_path), NAME) == [f"{newest.name}: adapter/weights.safetensors has changed"]
    assert names(reported) == []


def test_a_checkpoint_without_every_workers_part_is_incomplete(tmp_path: Path, reported: Reported) -> None:
    newest = checkpoint(tmp_path, 10, num_parts=2)
    assert repair(str(tmp_path), NAME) == []
    (newest / "seal-1.json").unlink()
    assert repair(str(tmp_path), NAME) == [f"{newest.name}: seal-1.json is missing"]


def test_an_older_incomplete_one_is_removed_too(tmp_path: Path, reported: Reported) -> None:
    before, newest = checkpoint(tmp_path, 5), checkpoint(tmp_path, 10)
    (before / "optimizer.pt").write_bytes(b"")
    assert repair(str(tmp_path), NAME) == [f"{before.name}: optimizer.pt has 0 of 5 bytes"]
    assert names(reported) == [newest.name]


@pytest.mark.parametrize("lost", ["__0_0.distcp", "__1_0.distcp", ".metadata"])
def test_a_shard_or_the_list_of_shards_that_is_gone_is_missed(lost: str, tmp_path: Path, reported: Reported) -> None:
    """Each worker seals what it wrote into the folder of shards that all share."""
    folder = tmp_path / NAME / "checkpoint_2026-01-01_00-00-01.000"
    for rank, names in enumerate((["__0_0.distcp", ".metadata"], ["__1_0.distcp"])):
        own = tmp_path / f"part-{rank}"
        (own / "pytorch_model_fsdp_0").mkdir(parents=True)
        for name in names:
            (own / "pytorch_model_fsdp_0" / name).write_text(name)
        seal(own, rank, 2, {"step": 1}, NAME)
        copytree(own, folder, dirs_exist_ok=True)
    assert repair(str(tmp_path), NAME) == []
    (folder / "pytorch_model_fsdp_0" / lost).unlink()
    (found,) = repair(str(tmp_path), NAME)
    assert found.startswith(f"{folder.name}: pytorch_model_fsdp_0/{lost} has 0 of")
