from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from runner.errors import RunnerError
from stages.data.sources import web as sources
from stages.data.sources.fetch import fetch_files

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


def test_web_files_are_fetched_again_when_the_server_is_busy_or_cuts_off(web: str, tmp_path: Path) -> None:
    _Handler.busy[:] = [503, 429]
    _Handler.cut_off[:] = [100]
    assert fetch_files(web, ["sub/train 1.jsonl"], tmp_path)["sub/train 1.jsonl"].read_bytes() == TRAIN
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
        ("gs://bucket", "no source of files"),
    ],
)
def test_sources_that_cannot_be_read_are_refused(source: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match=message) as caught:
        fetch_files(source, ["train.jsonl"], tmp_path)
    assert "abc" not in caught.value.message


@pytest.mark.parametrize("name", ["../train.jsonl", "/etc/passwd", "a\\b"])
def test_file_names_stay_inside_the_source(name: str, tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="no legal path"):
        fetch_files(str(tmp_path), [name], tmp_path)
