"""Several publishers under one key: the same set is published once, and different sets never mix."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.errors import RunnerError
from runner.storage import s3
from runner.storage.artifact import Artifact, scan_folder
from runner.storage.local import FolderBlobs
from runner.storage.store import CLAIM, Store, open_store

pytest_plugins = ["tests.moto_s3"]

PUBLISHER = """
import sys
from pathlib import Path
from runner.errors import RunnerError
from runner.storage.artifact import scan_folder
from runner.storage.store import open_store

store = open_store(sys.argv[1])
artifact = scan_folder("adapter", Path(sys.argv[2]))
print("ready", flush=True)
for line in sys.stdin:
    try:
        print(store.publish(artifact, line.strip(), "adapter").sha256, flush=True)
    except RunnerError as error:
        print(error, flush=True)
"""


def make_set(folder: Path, content: bytes) -> Artifact:
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors", "tokenizer.json"):
        (folder / name).write_bytes(name.encode() + content * 1000)
    return scan_folder("checkpoint", folder)


@pytest.fixture(params=["folder", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "store")
    request.getfixturevalue("s3_env")
    return f"s3://{request.getfixturevalue('bucket')}/p"


@pytest.fixture
def publishers(uri: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[list[subprocess.Popen[str]]]:
    """Three processes; the first two publish the same set, the third another one."""
    make_set(tmp_path / "one", b"1")
    make_set(tmp_path / "two", b"2")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, uri, str(tmp_path / name)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name in ("one", "one", "two")
    ]  # fmt: skip
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    yield processes
    for process in processes:
        process.communicate()


def test_processes_that_publish_at_once_never_mix_their_sets(
    publishers: list[subprocess.Popen[str]], uri: str, tmp_path: Path
) -> None:
    store = open_store(uri)
    num_complete = 0
    for number in range(24):
        key = f"adapters/{number}"
        for process in publishers:
            assert process.stdin
            process.stdin.write(f"{key}\n")
            process.stdin.flush()
        answers = [process.stdout.readline().strip() for process in publishers if process.stdout]
        there = store.exists(key)
        if there is None:
            assert all("another set is being published" in answer for answer in answers), answers
            continue
        num_complete += 1
        assert there.sha256 in answers
        store.fetch(key, tmp_path / "fetched" / key)
        for answer in answers:
            assert answer == there.sha256 or "another set" in answer, answers
        assert {info.key for info in store.list(key)} == {
            f"{key}/_manifest.json", *(f"{key}/{entry.path}" for entry in there.files),
        }  # fmt: skip
    assert num_complete


@pytest.fixture
def store(request: pytest.FixtureRequest, uri: str, tmp_path: Path) -> Store:
    if uri.startswith("s3://"):
        bucket, prefix = s3.split_uri(uri)
        return Store(uri, s3.S3Blobs(request.getfixturevalue("s3_client"), bucket, prefix))
    return Store(uri, FolderBlobs(Path(uri)))


def test_who_sees_the_claim_of_another_set_gives_up_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    mine, other = make_set(tmp_path / "one", b"1"), make_set(tmp_path / "two", b"2")
    claim = store._claim(other, "a")[0]
    with pytest.raises(RunnerError, match="another set is being published to") as caught:
        store.publish(mine, "a", "adapter")
    assert claim in caught.value.message
    assert [info.key for info in store.list("a")] == [claim]
    assert store.publish(other, "a", "adapter").sha256 == other.sha256


def test_a_claim_of_the_same_set_stops_nobody(store: Store, tmp_path: Path) -> None:
    mine = make_set(tmp_path / "one", b"1")
    store._claim(mine, "a")
    assert store.publish(mine, "a", "adapter").sha256 == mine.sha256
    assert not [info.key for info in store.list("a") if CLAIM in info.key]


def test_a_claim_of_a_killed_process_ends_by_the_clock_of_the_store(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store._claim(make_set(tmp_path / "two", b"2"), "a")
    monkeypatch.setattr("runner.storage.store._CLAIM_S", -1.0)
    mine = make_set(tmp_path / "one", b"1")
    assert store.publish(mine, "a", "adapter").sha256 == mine.sha256


def test_a_set_may_not_hold_files_with_names_of_the_store(store: Store, tmp_path: Path) -> None:
    made = make_set(tmp_path / "one", b"1")
    (made.path / f"{CLAIM}json").touch()
    with pytest.raises(RunnerError, match="name that stores keep"):
        store.publish(scan_folder("checkpoint", made.path), "a", "adapter")


def test_uploads_in_parts_that_were_cut_off_are_given_up(s3_client: Any, bucket: str, tmp_path: Path) -> None:
    for key in ("p/a/weights", "p/ab/weights"):
        s3_client.create_multipart_upload(Bucket=bucket, Key=key)
    Store(f"s3://{bucket}/p", s3.S3Blobs(s3_client, bucket, "p")).publish(make_set(tmp_path / "one", b"1"), "a", "x")
    left = s3_client.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [upload["Key"] for upload in left] == ["p/ab/weights"]


def test_what_killed_writers_left_in_a_folder_goes_after_a_day(tmp_path: Path) -> None:
    import os
    import uuid

    partial = tmp_path / "store" / ".partial"
    partial.mkdir(parents=True)
    old, new = uuid.uuid4().hex, uuid.uuid4().hex
    for name in (old, new, "of-somebody-else"):
        (partial / name).write_bytes(b"half")
    for name in (old, "of-somebody-else"):
        os.utime(partial / name, (1e9, 1e9))
    open_store(str(tmp_path / "store")).publish(make_set(tmp_path / "one", b"1"), "a", "x")
    assert {path.name for path in partial.iterdir()} == {new, "of-somebody-else"}
