from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from runner.errors import RunnerError
from stages.data.sources import hub
from stages.data.sources import web as sources
from stages.data.sources.fetch import fetch_files, fetch_patterns, open_files
from stages.sections.dataset import Dataset

pytest_plugins = ["tests.moto_s3"]

TRAIN, TEST = b'{"a": 1}\n' * 1000, b'{"a": 2}\n'


class _Handler(BaseHTTPRequestHandler):
    """Serves /ds/train.jsonl; the lists say how the next requests go wrong."""

    busy: ClassVar[list[int]] = []
    cut_off: ClassVar[list[int]] = []

    def do_GET(self) -> None:
        if self.busy:
            self.send_error(self.busy.pop())
        elif self.path == "/ds/sub/train%201.jsonl":
            self.send_response(200)
            self.send_header("Content-Length", str(len(TRAIN)))
            self.end_headers()
            self.wfile.write(TRAIN[: self.cut_off.pop()] if self.cut_off else TRAIN)
        else:
            self.send_error(404)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(sources, "_BACKOFF_S", 0.0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/ds"
    server.shutdown()
    server.server_close()
    thread.join()


def test_local_files_are_used_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(TRAIN)
    assert fetch_files(str(tmp_path), ["train.jsonl"], tmp_path / "raw") == {"train.jsonl": tmp_path / "train.jsonl"}
    assert not (tmp_path / "raw").exists()


def test_missing_local_files_and_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "dev.jsonl").touch()
    with pytest.raises(RunnerError, match=r"has no file val\.jsonl; it holds: dev\.jsonl") as caught:
        fetch_files(str(tmp_path), ["val.jsonl"], tmp_path)
    assert "dataset.files" in caught.value.hint
    with pytest.raises(RunnerError, match="there is no folder"):
        fetch_files(str(tmp_path / "no"), ["val.jsonl"], tmp_path)


def test_s3_files_come_side_by_side(s3_client: Any, bucket: str, tmp_path: Path) -> None:
    s3_client.put_object(Bucket=bucket, Key="ds/v1/train.jsonl", Body=TRAIN)
    s3_client.put_object(Bucket=bucket, Key="ds/v1/test.jsonl", Body=TEST)
    seen: list[tuple[int, int | None]] = []
    paths = fetch_files(
        f"s3://{bucket}/ds/v1/", ["train.jsonl", "test.jsonl"], tmp_path,
        on_bytes=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert {name: path.read_bytes() for name, path in paths.items()} == {"train.jsonl": TRAIN, "test.jsonl": TEST}
    assert seen[-1] == (len(TRAIN) + len(TEST),) * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.jsonl", "train.jsonl"]


def test_s3_files_come_without_credentials_from_a_given_endpoint(
    s3_client: Any, bucket: str, s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_client.put_object(Bucket=bucket, Key="train.jsonl", Body=TRAIN, ACL="public-read")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    paths = fetch_files(f"s3://{bucket}", ["train.jsonl"], tmp_path, endpoint_url=s3_server, anonymous=True)
    assert paths["train.jsonl"].read_bytes() == TRAIN


def test_a_missing_s3_file_is_named_by_bucket_and_key(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match=rf"s3://{bucket}/ds/val\.jsonl: there is no such key") as caught:
        fetch_files(f"s3://{bucket}/ds", ["val.jsonl"], tmp_path)
    assert "null where the dataset has none" in caught.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("source", ["folder", "web"])
def test_files_that_have_more_bytes_than_the_limit_are_refused(source: str, web: str, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(TRAIN)
    place, name = (str(tmp_path), "train.jsonl") if source == "folder" else (web, "sub/train 1.jsonl")
    with pytest.raises(RunnerError, match=r"have more than dataset\.max_gib=1e-09$"):
        fetch_patterns(place, {"train": [name]}, tmp_path / "raw", max_gib=1e-9)
    assert not list(tmp_path.glob("raw/**/*.jsonl"))
    assert fetch_patterns(place, {"train": [name]}, tmp_path / "raw", max_gib=1)["train"][name].is_file()


def test_web_files_are_fetched_again_when_the_server_is_busy_or_cuts_off(web: str, tmp_path: Path) -> None:
    _Handler.busy[:] = [503, 429]
    _Handler.cut_off[:] = [100]
    name, reported = "sub/train 1.jsonl", list[tuple[int, int | None]]()
    found = fetch_files(web, [name], tmp_path, on_bytes=lambda done, total: reported.append((done, total)))
    assert found[name].read_bytes() == TRAIN
    assert reported[-1] == (len(TRAIN), len(TRAIN))  # what arrived before the cut does not count twice
    assert not _Handler.busy
    assert not _Handler.cut_off


def test_a_web_file_that_is_missing_or_never_whole_is_refused(web: str, tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match=r"ds/val\.jsonl: 404") as caught:
        fetch_files(web, ["val.jsonl"], tmp_path)
    assert "dataset.files" in caught.value.hint
    _Handler.cut_off[:] = [10] * 4
    with pytest.raises(RunnerError, match=r"train%201\.jsonl"):
        fetch_files(web, ["sub/train 1.jsonl"], tmp_path)
    assert not (tmp_path / "sub" / "train 1.jsonl").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("http://example.com/ds", "not encrypted"),
        ("https://example.com/ds?token=abc", "has a query"),
        ("ftp://bucket", "not a source of files"),
    ],
)
def test_sources_that_cannot_be_read_are_refused(source: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match=message) as caught:
        fetch_files(source, ["train.jsonl"], tmp_path)
    assert "abc" not in caught.value.message


@pytest.mark.parametrize("name", ["../train.jsonl", "/etc/passwd", "a\\b"])
def test_file_names_stay_inside_the_source(name: str, tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="not a legal path"):
        fetch_files(str(tmp_path), [name], tmp_path)


def test_one_web_file_may_have_a_query_which_no_message_shows(web: str, tmp_path: Path) -> None:
    source = f"{web}/sub/train.jsonl?sig=hunter2"
    with pytest.raises(RunnerError, match=r"/ds/sub/train\.jsonl: 404") as caught:
        fetch_files(source, ["train.jsonl"], tmp_path)
    assert "hunter2" not in caught.value.message + caught.value.hint


def test_patterns_and_lists_mean_several_files_in_order(tmp_path: Path) -> None:
    for name in ("train-1.jsonl", "train-0.jsonl", "sub/x.jsonl", "test.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(TRAIN)
    patterns = {"train": ["train-*.jsonl", "sub/x.jsonl"], "test": ["test.jsonl"]}
    found = fetch_patterns(str(tmp_path), patterns, tmp_path / "raw")
    assert list(found["train"]) == ["train-0.jsonl", "train-1.jsonl", "sub/x.jsonl"]
    with pytest.raises(RunnerError, match=r"has no file like val-\*; it holds: sub/x\.jsonl"):
        fetch_patterns(str(tmp_path), {"val": ["val-*"]}, tmp_path / "raw")


def filled(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(TRAIN)


def test_a_pattern_means_files_of_rows_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    kept = ["d/train-2.jsonl", "d/train-10.jsonl"]
    not_data = (
        "d/README.md",
        "d/state.json",
        "d/dataset_info.json",
        "d/_SUCCESS",
        "d/.train-2.jsonl.crc",
        "d/train-2.bak",
    )
    filled(tmp_path, *kept, *not_data, "d/.ipynb_checkpoints/train-2-checkpoint.jsonl")
    assert list(fetch_patterns(str(tmp_path), {"train": ["d/*"]}, tmp_path / "raw")["train"]) == kept
    hidden = fetch_patterns(str(tmp_path), {"train": ["d/.ipynb_checkpoints/*"]}, tmp_path / "raw")
    assert len(hidden["train"]) == 1


def test_two_stars_mean_any_folders_or_none(tmp_path: Path) -> None:
    for name in ("a.jsonl", "x/b.jsonl", "x/y/c.jsonl", "x/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert open_files(str(tmp_path), None, False).find("**/*.jsonl") == ["a.jsonl", "x/b.jsonl", "x/y/c.jsonl"]


def test_a_shard_that_is_missing_among_numbered_ones_is_told(tmp_path: Path) -> None:
    filled(tmp_path, "train-00000-of-00003.jsonl", "train-00002-of-00003.jsonl")
    with pytest.raises(RunnerError, match=r"lacks train-00001-of-00003\.jsonl, one of those that train-\* means"):
        fetch_patterns(str(tmp_path), {"train": ["train-*"]}, tmp_path / "raw")
    names = ["train-00000-of-00003.jsonl", "train-00002-of-00003.jsonl"]
    assert list(fetch_patterns(str(tmp_path), {"train": names}, tmp_path / "raw")["train"]) == names
    filled(tmp_path, "part-00001-of-00002.jsonl", "part-00002-of-00002.jsonl")
    assert len(fetch_patterns(str(tmp_path), {"train": ["part-*"]}, tmp_path / "raw")["train"]) == 2


def test_a_pattern_that_means_a_file_of_another_split_is_refused(tmp_path: Path) -> None:
    filled(tmp_path, "data-train.jsonl", "data-test.jsonl")
    with pytest.raises(RunnerError, match=r"files\.test means data-test\.jsonl, which is the file of train too"):
        fetch_patterns(str(tmp_path), {"train": ["data-*"], "test": ["data-test.jsonl"]}, tmp_path / "raw")


def test_objects_are_found_by_a_pattern(s3_client: Any, bucket: str, tmp_path: Path) -> None:
    for name in ("a-1.jsonl", "a-0.jsonl", "b.jsonl"):
        s3_client.put_object(Bucket=bucket, Key=f"ds/{name}", Body=TEST)
    found = fetch_patterns(f"s3://{bucket}/ds", {"train": ["a-*.jsonl"]}, tmp_path)
    assert [path.read_bytes() for path in found["train"].values()] == [TEST, TEST]
    assert list(found["train"]) == ["a-0.jsonl", "a-1.jsonl"]


def test_a_source_may_be_one_file(tmp_path: Path, s3_client: Any, bucket: str) -> None:
    (tmp_path / "x.csv").write_bytes(b"a\n1\n")
    assert fetch_files(str(tmp_path / "x.csv"), ["x.csv"], tmp_path) == {"x.csv": tmp_path / "x.csv"}
    s3_client.put_object(Bucket=bucket, Key="ds/x.csv", Body=b"a\n1\n")
    assert fetch_files(f"s3://{bucket}/ds/x.csv", ["x.csv"], tmp_path / "raw")["x.csv"].read_bytes() == b"a\n1\n"


def test_files_of_arrows_stores_are_found_and_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyarrow import fs

    (tmp_path / "bucket" / "ds").mkdir(parents=True)
    for name in ("a-0.jsonl", "a-1.jsonl"):
        (tmp_path / "bucket" / "ds" / name).write_bytes(TEST)
    monkeypatch.setattr(fs, "GcsFileSystem", lambda **_: fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()))
    found = fetch_patterns("gs://bucket/ds", {"train": ["a-*"]}, tmp_path / "raw")
    assert [path.read_bytes() for path in found["train"].values()] == [TEST, TEST]
    with pytest.raises(RunnerError, match=r"gs://bucket/ds: no\.jsonl"):
        fetch_files("gs://bucket/ds", ["no.jsonl"], tmp_path / "raw")
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(RunnerError, match="names no storage account"):
        fetch_files("az://container/ds", ["a.jsonl"], tmp_path / "raw")


def test_files_of_an_installed_package_are_used_where_they_are(tmp_path: Path) -> None:
    found = fetch_files("package://pytest/_pytest", ["main.py"], tmp_path)
    assert found["main.py"].read_text().startswith('"""')
    with pytest.raises(RunnerError, match="the package no-such is not installed"):
        fetch_files("package://no-such/x", ["main.py"], tmp_path)


def test_rows_of_the_hub_are_streamed_with_the_names_of_their_labels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import datasets

    asked: list[Any] = []
    features = datasets.Features({"q": datasets.Value("string"), "a": datasets.ClassLabel(names=["no", "yes"])})
    made = datasets.Dataset.from_dict({"q": ["Open?"], "a": [1]}, features=features)

    def load(*args: Any, **options: Any) -> Any:
        asked.append((args, options))
        return made.to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load)
    section = Dataset.model_validate({"source": "hf://org/name?config=en&revision=abc", "prompt": {}})
    assert list(hub.rows(section, 0, "train")) == [("train:1", {"q": "Open?", "a": "yes"})]
    assert asked == [(("org/name", "en"), {"revision": "abc", "split": "train", "streaming": True})]
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: 1 / 0)
    with pytest.raises(RunnerError, match=r"hf://org/name\?config=en&revision=abc, split train: division by zero"):
        list(hub.rows(section, 0, "train"))
