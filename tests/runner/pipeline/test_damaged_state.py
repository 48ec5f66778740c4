"""Every file that a run leaves, corrupt in turn: it is named, rewritten or skipped, and the results are the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.errors import EXIT_DONE
from tests.runner.runs import Place


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def emptied(data: bytes) -> bytes:
    return b""


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x80]) + data[middle + 1 :]


def edited(data: bytes) -> bytes:
    """Another digit or letter at the same place: still JSON, most of the time."""
    place = next(i for i in range(len(data) // 3, len(data)) if chr(data[i]).isalnum())
    return data[:place] + (b"7" if data[place : place + 1] != b"7" else b"8") + data[place + 1 :]


def names_of(files: list[Path]) -> set[str]:
    return {path.name for path in files if "logs" not in path.parts}


# What the next run reads of a finished run, and must say when it cannot use it. A stage's mark says nothing of its own:
# what is next to an unknown mark is put aside.
READ_AGAIN = {"manifest.json", "identity.json"}


@pytest.mark.parametrize(
    ("tear", "stopped_at"), [(truncated, "publish"), (emptied, None), (flipped, "publish"), (edited, None)]
)
def test_a_corrupt_file_never_changes_the_result(
    fake_stages: Any, tmp_path: Path, tear: Callable[[bytes], bytes], stopped_at: str | None
) -> None:
    place = Place(tmp_path)
    if stopped_at:
        fake_stages.fail.add(stopped_at)
    place.run()
    fake_stages.fail.clear()
    files = place.keep()
    code, reference, _ = place.run()
    assert code == EXIT_DONE
    assert {"manifest.json", ".manifest.copy.json", "recipe.json", "identity.json", "summary.json", ".fingerprint",
            "content.json"} <= names_of(files)  # fmt: skip
    for file in files:
        place.restore()
        (place.root / file).write_bytes(tear((place.root / file).read_bytes()))
        fake_stages.runs.clear()
        code, digests, shown = place.run()
        assert (code, digests) == (EXIT_DONE, reference), file
        if file.name in READ_AGAIN:
            assert f"{file.name} is damaged" in shown, file
        if file.name == "content.json":
            assert file.parts[2] in fake_stages.runs, file


def test_a_corrupt_manifest_loses_nothing_while_its_copy_is_whole(fake_stages: Any, tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.run()
    manifest = next(place.root.glob("*/*/manifest.json"))
    manifest.write_bytes(truncated(manifest.read_bytes()))
    fake_stages.runs.clear()
    _, _, shown = place.run()
    assert fake_stages.runs == []
    assert "manifest.json is damaged" in shown
    assert ".manifest.copy.json is used" in shown


def test_a_run_whose_manifest_and_copy_are_corrupt_is_done_again(fake_stages: Any, tmp_path: Path) -> None:
    place = Place(tmp_path)
    _, reference, _ = place.run()
    folder = next(place.root.glob("*/*/manifest.json")).parent
    for name in ("manifest.json", ".manifest.copy.json"):
        (folder / name).write_bytes(b"")
    fake_stages.runs.clear()
    code, digests, shown = place.run()
    assert (code, digests) == (EXIT_DONE, reference)
    assert fake_stages.runs == ["ingest", "train", "publish"]
    assert "what that run made is not used" in shown


def test_an_edited_record_is_not_believed(fake_stages: Any, tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.run()
    folder = next(place.root.glob("*/*/manifest.json")).parent
    for name in ("manifest.json", ".manifest.copy.json"):
        values = json.loads((folder / name).read_text())
        values["stages"][-1]["metrics"] = {"exact_match": 1.0}
        (folder / name).write_text(json.dumps(values))
    _, _, shown = place.run()
    assert "its content has changed since it was written (self_sha256)" in shown


def test_what_killed_writers_left_is_removed_when_the_run_resumes(fake_stages: Any, tmp_path: Path) -> None:
    place = Place(tmp_path)
    fake_stages.fail.add("publish")
    place.run()
    folder = next(place.root.glob("*/*/manifest.json")).parent
    (folder / ".manifest.json.0123456789ab.tmp").write_text("{")
    fake_stages.fail.clear()
    place.run()
    assert not list(folder.glob(".*.tmp"))
