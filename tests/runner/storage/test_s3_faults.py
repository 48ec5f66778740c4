"""Every fault at any call of publish and of ingest: success or a clear error, never a part, and then it works."""

from __future__ import annotations

import io
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.errors import EXIT_STAGE_FAILED, RunnerError
from runner.pipeline.engine import run
from runner.pipeline.stage import StageResult
from runner.recipe.load import compose, to_recipe
from runner.report.observers import OnTerminal
from runner.report.terminal import Report
from runner.storage import s3
from runner.storage.artifact import Artifact, scan_folder
from runner.storage.store import Store
from stages.data.sources.fetch import fetch_files
from stages.models.obtain import obtain_model
from tests import conftest
from tests.s3_faults import FAULTS, FaultyServer, faulty

pytest_plugins = ["tests.moto_s3"]

READ_TIMEOUT_S = 0.5
ROWS = b"".join(json.dumps({"n": n, "text": "x" * 50}).encode() + b"\n" for n in range(200))
MODEL = {"config.json": b"{}", "tokenizer.json": b'{"a": 1}', "model.safetensors": bytes(range(256)) * 8}


@pytest.fixture
def proxy(s3_env: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """A proxy that the clients of the test talk to; they wait for an answer for a moment and do not back off."""
    import botocore.endpoint

    monkeypatch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=lambda seconds: None, time=time.time))
    monkeypatch.setattr(s3, "_BACKOFF_S", 0.0)
    monkeypatch.setattr(s3, "_READ_TIMEOUT_S", READ_TIMEOUT_S)
    with faulty(s3_env, late_s=2 * READ_TIMEOUT_S) as server:
        client = s3.connect(server.url)  # creating one takes a third of a second
        monkeypatch.setattr(s3, "connect", lambda *args, **kwargs: client)
        yield server


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    (tmp_path / "set" / "sub").mkdir(parents=True)
    (tmp_path / "set" / "adapter_config.json").write_text("{}")
    (tmp_path / "set" / "sub" / "weights.safetensors").write_bytes(bytes(range(256)) * 40)
    return scan_folder("trained_weights", tmp_path / "set")


class Reader:
    """Looks for the set all the time, and reads it whenever it is there."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.keys: set[str] = set()
        self.polls = self.reads = 0
        self.errors: list[str] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._poll)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *args: Any) -> None:
        self._end.set()
        self._thread.join()

    def _poll(self) -> None:
        done: set[str] = set()
        while not self._end.wait(0.02):
            for key in self.keys - done:
                self.polls += 1
                try:
                    if self.store.exists(key) is not None:
                        self.store.fetch(key, self.folder / key)
                        self.reads += 1
                        done.add(key)
                except RunnerError as error:
                    self.errors.append(str(error))


def publish_with_faults(
    proxy: FaultyServer, direct: Store, artifact: Artifact, folder: Path, choose: Callable[[int], list[int]]
) -> Counter[tuple[str, str]]:
    """Publish once for each fault at each chosen call. Returns how often it (succeeded | failed), by fault."""
    store = Store(direct.uri, s3.S3Blobs(s3.connect(), *s3.split_uri(direct.uri)))
    proxy.reset("", ())
    store.publish(artifact, "plain", "adapter")
    chosen = choose(proxy.calls)
    outcomes: Counter[tuple[str, str]] = Counter()
    messages: list[str] = []
    succeeded_after_all: list[tuple[str, int]] = []
    with Reader(direct, folder / "read") as reader:
        for fault in FAULTS:
            for call in chosen:
                key = f"{fault}-{call}".replace(" ", "-")
                reader.keys = reader.keys | {key}
                proxy.reset(fault, {call})
                try:
                    store.publish(artifact, key, "adapter")
                    outcomes[fault, "succeeded"] += 1
                except RunnerError as error:
                    outcomes[fault, "failed"] += 1
                    messages.append(error.message)
                    print(f"{fault} at call {call}: {error}")
                    succeeded_after_all += [(fault, call)] if direct.exists(key) else []
                assert proxy.injected == 1, (fault, call)
                proxy.reset("", ())
                assert store.publish(artifact, key, "adapter").sha256 == artifact.sha256
                direct.fetch(key, folder / "fetched" / key)
                stored = {info.key for info in direct.list(key)}
                assert stored == {f"{key}/_manifest.json", *(f"{key}/{entry.path}" for entry in artifact.files)}
    assert [text for text in messages if "s3://" not in text] == []
    assert succeeded_after_all == []
    assert reader.errors == []
    assert reader.polls > len(chosen)
    return outcomes


def ingest(source: str, folder: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Download a data set and a model, as ingest does. Returns their files' content."""
    paths = fetch_files(f"{source}/ds", ["train.jsonl", "test.jsonl"], folder / "raw")
    model = obtain_model(f"{source}/model", None, folder / "cache")
    return (
        {name: path.read_bytes() for name, path in paths.items()},
        {path.name: path.read_bytes() for path in model.iterdir()},
    )


def ingest_with_faults(
    proxy: FaultyServer, client: Any, bucket: str, folder: Path, choose: Callable[[int], list[int]]
) -> Counter[tuple[str, str]]:
    """As `publish_with_faults`."""
    data = {"train.jsonl": ROWS, "test.jsonl": ROWS[:700]}
    for prefix, files in (("ds", data), ("model", MODEL)):
        for name, content in files.items():
            client.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=content)
    proxy.reset("", ())
    assert ingest(f"s3://{bucket}", folder / "plain") == (data, MODEL)
    chosen = choose(proxy.calls)
    outcomes: Counter[tuple[str, str]] = Counter()
    messages: list[str] = []
    for fault in FAULTS:
        for call in chosen:
            place = folder / f"{fault}-{call}"
            proxy.reset(fault, {call})
            try:
                assert ingest(f"s3://{bucket}", place) == (data, MODEL), (fault, call)
                outcomes[fault, "succeeded"] += 1
            except RunnerError as error:
                outcomes[fault, "failed"] += 1
                messages.append(error.message)
                print(f"{fault} at call {call}: {error}")
            assert proxy.injected == 1, (fault, call)
            proxy.reset("", ())
            assert ingest(f"s3://{bucket}", place) == (data, MODEL), (fault, call)
            left = {path.name for path in (place / "raw").iterdir()}
            assert left == set(data), (fault, call)
    assert [text for text in messages if "s3://" not in text] == []
    return outcomes


def some(num_chosen: int) -> Callable[[int], list[int]]:
    return lambda num_calls: sorted(random.Random(7).sample(range(num_calls), num_chosen))


def every(num_calls: int) -> list[int]:
    return list(range(num_calls))


def direct_store(client: Any, bucket: str) -> Store:
    """The store, reached without the proxy."""
    return Store(f"s3://{bucket}/store", s3.S3Blobs(client, bucket, "store"))


def test_a_fault_at_some_call_of_publish(
    proxy: FaultyServer, s3_client: Any, bucket: str, artifact: Artifact, tmp_path: Path
) -> None:
    outcomes = publish_with_faults(proxy, direct_store(s3_client, bucket), artifact, tmp_path, some(2))
    assert sum(outcomes.values()) == 2 * len(FAULTS)


def test_a_fault_at_some_call_of_ingest(proxy: FaultyServer, s3_client: Any, bucket: str, tmp_path: Path) -> None:
    outcomes = ingest_with_faults(proxy, s3_client, bucket, tmp_path, some(2))
    assert sum(outcomes.values()) == 2 * len(FAULTS)


@pytest.mark.e2e
@pytest.mark.chaos
def test_a_fault_at_every_call_of_publish(
    proxy: FaultyServer, s3_client: Any, bucket: str, artifact: Artifact, tmp_path: Path
) -> None:
    tell(publish_with_faults(proxy, direct_store(s3_client, bucket), artifact, tmp_path, every))


@pytest.mark.e2e
@pytest.mark.chaos
def test_a_fault_at_every_call_of_publish_in_parts(
    proxy: FaultyServer, s3_client: Any, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from boto3.s3.transfer import TransferConfig

    part_bytes = 5 << 20  # S3's least
    config = TransferConfig(multipart_threshold=part_bytes, multipart_chunksize=part_bytes)
    monkeypatch.setattr(s3, "transfer_config", lambda: config)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "weights.safetensors").write_bytes(bytes(range(251)) * 25_000)
    artifact = scan_folder("trained_weights", tmp_path / "set")
    tell(publish_with_faults(proxy, direct_store(s3_client, bucket), artifact, tmp_path, every))
    assert not s3_client.list_multipart_uploads(Bucket=bucket).get("Uploads")


@pytest.mark.e2e
@pytest.mark.chaos
def test_a_fault_at_every_call_of_ingest(proxy: FaultyServer, s3_client: Any, bucket: str, tmp_path: Path) -> None:
    tell(ingest_with_faults(proxy, s3_client, bucket, tmp_path, every))


def tell(outcomes: Counter[tuple[str, str]]) -> None:
    print(f"\n{sum(outcomes.values())} faults:", *(f"{fault} {what} {n}," for (fault, what), n in outcomes.items()))


@pytest.mark.parametrize("fault", ["503", "reset after", "truncated", "wrong bytes"])
def test_a_store_that_never_answers_well_fails_the_stage_in_bounded_time(
    proxy: FaultyServer, s3_client: Any, bucket: str, fake_stages: Any, local: list[str], fault: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    direct = direct_store(s3_client, bucket)

    def publish(self: Any, ctx: Any) -> StageResult:
        store = Store(direct.uri, s3.S3Blobs(s3.connect(), *s3.split_uri(direct.uri)))
        proxy.reset(fault, None)
        return StageResult([store.publish(ctx.input("trained_weights"), "a", "adapter")])

    monkeypatch.setattr(conftest.Publish, "run", publish)
    recipe, options = to_recipe(compose(["recipe=viggo_quickstart", *local, "pipeline=[ingest,train,publish]"]))
    screen = io.StringIO()
    code, _ = run(recipe, options, "python -m runner", [OnTerminal(Report(screen))])
    shown = screen.getvalue()
    assert code == EXIT_STAGE_FAILED
    assert f"s3://{bucket}/store/a" in shown.replace("\n", "")
    assert "Traceback" not in shown
    assert proxy.calls < 60
    assert direct.exists("a") is None
