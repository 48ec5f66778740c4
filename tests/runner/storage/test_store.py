from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from runner.errors import RunnerError
from runner.storage import s3
from runner.storage.artifact import Artifact, FileEntry, digest_files, scan_folder
from runner.storage.atomic import sealed
from runner.storage.local import FolderBlobs
from runner.storage.store import SET_MANIFEST, Store, open_store

MIB = 1 << 20


pytest_plugins = ["tests.moto_s3"]


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store(str(tmp_path / "store"))
    bucket = request.getfixturevalue("bucket")
    return Store(f"s3://{bucket}/some/prefix", s3.S3Blobs(request.getfixturevalue("s3_client"), bucket, "some/prefix"))


@pytest.fixture
def adapter(tmp_path: Path) -> Artifact:
    folder = tmp_path / "adapter"
    (folder / "sub").mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "sub" / "empty.txt").write_bytes(b"")
    (folder / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 400)
    return scan_folder("checkpoint", folder, {"steps": 3})


def keys(store: Store) -> set[str]:
    return {info.key for info in store.list()}


def put(store: Store, key: str, data: bytes) -> None:
    assert store._blobs.put_new(data, key)


def test_publishes_and_fetches_the_same_bytes(store: Store, adapter: Artifact, tmp_path: Path) -> None:
    published = store.publish(adapter, "adapters/m/a-1", "adapter")
    assert (published.name, published.uri) == ("adapter", f"{store.uri}/adapters/m/a-1")
    assert (published.sha256, published.meta) == (adapter.sha256, {"steps": 3})
    assert store.exists("adapters/m/a-1") == published
    fetched = store.fetch(published, tmp_path / "copy")
    assert scan_folder("adapter", tmp_path / "copy", {"steps": 3}) == fetched
    assert store.fetch("adapters/m/a-1", tmp_path / "by-key").sha256 == adapter.sha256
    assert not [path for path in tmp_path.iterdir() if ".part-" in path.name]


def test_fetching_again_leaves_a_whole_destination_alone(store: Store, adapter: Artifact, tmp_path: Path) -> None:
    published = store.publish(adapter, "a", "adapter")
    store.fetch(published, tmp_path / "copy")
    assert store.fetch(published, tmp_path / "copy").path == tmp_path / "copy"
    (tmp_path / "copy" / "adapter_config.json").write_text("[]")
    with pytest.raises(RunnerError, match=r"adapter_config\.json is damaged"):
        store.fetch(published, tmp_path / "copy")


def test_counts_the_bytes_it_moves(store: Store, adapter: Artifact, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    published = store.publish(adapter, "a", "adapter", on_bytes=lambda done, total: seen.append((done, total)))
    store.fetch(published, tmp_path / "copy", on_bytes=lambda done, total: seen.append((done, total)))
    assert seen.count((adapter.size_bytes, adapter.size_bytes)) >= 2


def test_a_set_without_its_manifest_is_not_there(store: Store, adapter: Artifact, tmp_path: Path) -> None:
    put(store, "a/adapter_config.json", b"half")
    assert store.exists("a") is None
    with pytest.raises(RunnerError, match="no complete set"):
        store.fetch("a", tmp_path / "copy")
    assert store.publish(adapter, "a", "adapter").sha256 == adapter.sha256
    assert store.read_bytes("a/adapter_config.json") == b"{}"


def test_publishing_the_same_set_again_returns_it(store: Store, adapter: Artifact) -> None:
    assert store.publish(adapter, "a", "adapter") == store.publish(adapter, "a", "adapter")


@pytest.mark.parametrize("content", [b"[]", b"longer", None])
def test_publishing_the_same_set_again_repairs_what_is_damaged(
    store: Store, adapter: Artifact, tmp_path: Path, content: bytes | None
) -> None:
    published = store.publish(adapter, "a", "adapter")
    store._blobs.delete(["a/adapter_config.json"])
    if content is not None:
        put(store, "a/adapter_config.json", content)
    assert store.publish(adapter, "a", "adapter") == published
    assert store.fetch(published, tmp_path / "copy").sha256 == adapter.sha256


def test_a_manifest_that_is_cut_is_written_again(store: Store, adapter: Artifact) -> None:
    published = store.publish(adapter, "a", "adapter")
    store._blobs.delete([f"a/{SET_MANIFEST}"])
    put(store, f"a/{SET_MANIFEST}", b'{"name": "ad')
    assert store.publish(adapter, "a", "adapter") == published
    assert store.exists("a") == published


def test_damage_on_both_sides_is_reported_and_nothing_is_repaired_with_it(store: Store, adapter: Artifact) -> None:
    published = store.publish(adapter, "a", "adapter")
    for path in (adapter.path / "adapter_config.json",):
        path.write_text("[]")
    store._blobs.delete(["a/adapter_config.json"])
    with pytest.raises(RunnerError, match=r"adapter_config\.json is damaged"):
        store.publish(adapter, "a", "adapter")
    assert store.exists("a") == published


def test_a_manifest_that_was_answered_and_not_stored_is_noticed(
    store: Store, adapter: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store._blobs.put_new
    monkeypatch.setattr(
        store._blobs, "put_new", lambda data, key: True if key.endswith(SET_MANIFEST) else real(data, key)
    )
    with pytest.raises(RunnerError, match="was written, and the store does not have it"):
        store.publish(adapter, "a", "adapter")


def test_the_names_of_new_folders_are_on_the_disk_up_to_the_first_that_was_there(
    adapter: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[Path] = set()
    real = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: (synced.add(Path(f"/proc/self/fd/{handle}").readlink()), real(handle))
    )
    open_store(str(tmp_path / "deep" / "store")).publish(adapter, "adapters/m/a", "adapter")
    assert {tmp_path, tmp_path / "deep", *(tmp_path / "deep" / "store" / key for key in ("", "adapters"))} <= synced


def test_a_published_set_never_changes(store: Store, adapter: Artifact) -> None:
    store.publish(adapter, "a", "adapter")
    (adapter.path / "adapter_config.json").write_text("{1}")
    with pytest.raises(RunnerError, match="already holds another set"):
        store.publish(scan_folder("checkpoint", adapter.path), "a", "adapter")


def test_refuses_to_mix_a_set_with_unknown_files(store: Store, adapter: Artifact) -> None:
    put(store, "a/optimizer.pt", b"x")
    with pytest.raises(RunnerError, match=r"do not belong to adapter: a/optimizer\.pt"):
        store.publish(adapter, "a", "adapter")


def test_the_loser_of_a_race_takes_the_winners_set(
    store: Store, adapter: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    winner = store.publish(adapter, "a", "adapter")
    answers = iter([None, winner])
    monkeypatch.setattr(store, "exists", lambda key: next(answers))
    monkeypatch.setattr(store, "_refuse_strays", lambda *args: None)
    assert store.publish(adapter, "a", "adapter") == winner


def test_refuses_a_file_that_changed_since_it_was_described(store: Store, adapter: Artifact) -> None:
    (adapter.path / "adapter_config.json").write_text("[]")
    with pytest.raises(RunnerError, match="damaged"):
        store.publish(adapter, "a", "adapter")
    assert store.exists("a") is None


@pytest.mark.parametrize(
    ("content", "message"), [(b"[]", "damaged"), (b"longer", "has 6 bytes"), (None, "no such key|there is no")]
)
def test_fetch_refuses_a_damaged_file(
    store: Store, adapter: Artifact, tmp_path: Path, content: bytes | None, message: str
) -> None:
    published = store.publish(adapter, "a", "adapter")
    store._blobs.delete(["a/adapter_config.json"])
    if content is not None:
        put(store, "a/adapter_config.json", content)
    with pytest.raises(RunnerError, match=message):
        store.fetch(published, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    "key", ["../a", "/etc", "a/../b", "a//b", "a/./b", "a\\b", "a\nb", "a\x00b", "", "a/", "a\x7fb", "a\u2028b"]
)
def test_refuses_keys_that_leave_the_store(store: Store, adapter: Artifact, key: str) -> None:
    with pytest.raises(RunnerError, match="not a legal path"):
        store.publish(adapter, key, "adapter")
    with pytest.raises(RunnerError, match="not a legal path"):
        store.exists(key)


def test_refuses_a_manifest_whose_paths_leave_the_folder(store: Store, tmp_path: Path) -> None:
    files = [FileEntry(path="../../evil", size_bytes=1, sha256="0" * 64)]
    values = {"name": "x", "sha256": digest_files(files), "files": [files[0].model_dump()]}
    put(store, f"a/{SET_MANIFEST}", json.dumps(sealed(values)).encode())
    with pytest.raises(RunnerError, match="not a legal path"):
        store.fetch("a", tmp_path / "copy")


BAD_DIGEST = json.dumps(sealed({"name": "x", "sha256": "00", "files": []})).encode()


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'"text"', b'{"name": "x", "sha256": "00"}', b"\xff", BAD_DIGEST])
def test_refuses_a_damaged_manifest(store: Store, data: bytes) -> None:
    put(store, f"a/{SET_MANIFEST}", data)
    with pytest.raises(RunnerError, match="damaged"):
        store.exists("a")


def test_deletes_only_what_the_manifest_names(store: Store, adapter: Artifact) -> None:
    published = store.publish(adapter, "a", "adapter")
    put(store, "a/notes.txt", b"mine")
    put(store, "ab/other.txt", b"mine")
    store.delete_set(published)
    assert keys(store) == {"a/notes.txt", "ab/other.txt"}
    store.delete_set(published)


def test_deletes_no_set_that_took_its_place_nor_one_elsewhere(store: Store, adapter: Artifact) -> None:
    published = store.publish(adapter, "a", "adapter")
    with pytest.raises(RunnerError, match="another set"):
        store.delete_set(published.model_copy(update={"sha256": "0" * 64}))
    with pytest.raises(RunnerError, match="not in the store"):
        store.delete_set(adapter)
    assert store.exists("a") == published


def test_lists_below_a_folder_and_not_its_namesakes(store: Store) -> None:
    put(store, "a/one", b"1")
    put(store, "a/b/two", b"22")
    put(store, "ab/three", b"3")
    assert {(info.key, info.size_bytes) for info in store.list("a")} == {("a/one", 1), ("a/b/two", 2)}
    assert list(store.list("none")) == []


def test_reading_a_missing_file_names_it(store: Store) -> None:
    with pytest.raises(RunnerError, match=r"/nothing/here"):
        store.read_bytes("nothing/here")


def test_large_files_go_up_and_down_in_parts(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "model.safetensors").write_bytes(bytes(1000) + b"x" * (40 * MIB))
    store = open_store(f"s3://{bucket}")
    published = store.publish(scan_folder("model", tmp_path / "big"), "models/big", "model")
    head = s3.connect().head_object(Bucket=bucket, Key="models/big/model.safetensors")
    assert head["ETag"].strip('"').endswith("-3")
    assert store.fetch(published, tmp_path / "copy").size_bytes == 40 * MIB + 1000


def test_a_store_without_conditional_writes_gets_a_plain_one(bucket: str) -> None:
    from botocore.exceptions import ClientError

    class Old:
        def __init__(self) -> None:
            self.bodies: list[bytes] = []

        def put_object(self, **kwargs: Any) -> None:
            if "IfNoneMatch" in kwargs:
                answer = {"Error": {"Code": "NotImplemented"}, "ResponseMetadata": {"HTTPStatusCode": 501}}
                raise ClientError(answer, "PutObject")  # type: ignore[arg-type]
            self.bodies.append(kwargs["Body"])

    client = Old()
    assert s3.S3Blobs(client, bucket, "p").put_new(b"data", "k")
    assert client.bodies == [b"data"]


def test_missing_bucket_and_missing_credentials_are_explained(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunnerError, match="no-such-bucket-here") as caught:
        list(open_store("s3://no-such-bucket-here").list())
    assert "Create the bucket" in caught.value.hint
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(RunnerError, match="no credentials"):
        open_store(f"s3://{bucket}").read_bytes("a")
    assert list(open_store(f"s3://{bucket}", anonymous=True).list()) == []


@pytest.mark.parametrize("uri", ["s3://", "s3:///a", "s3://b/../c", "gs://bucket"])
def test_refuses_what_is_not_a_store(uri: str) -> None:
    with pytest.raises(RunnerError):
        open_store(uri)


def test_a_folder_store_does_not_follow_links_out_of_itself(tmp_path: Path, adapter: Artifact) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "adapters").symlink_to(tmp_path / "outside")
    with pytest.raises(RunnerError, match="through a link"):
        open_store(str(tmp_path / "store")).publish(adapter, "adapters/a", "adapter")


def test_leftovers_of_a_killed_upload_are_not_listed(tmp_path: Path, adapter: Artifact) -> None:
    store = open_store(str(tmp_path / "store"))
    (tmp_path / "store" / ".partial").mkdir(parents=True)
    (tmp_path / "store" / ".partial" / "abc").write_bytes(b"half")
    assert keys(store) == set()
    assert FolderBlobs(tmp_path / "store").read("a") is None
    store.publish(adapter, "a", "adapter")
    assert {path.name for path in (tmp_path / "store" / ".partial").iterdir()} == {"abc"}
