"""Stores that refuse the checksums which boto3 sends by itself: the message names the setting with which they work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.errors import RunnerError
from runner.storage import s3
from runner.storage.artifact import Artifact, scan_folder
from runner.storage.store import open_store
from tests.s3_faults import NO_CHECKSUMS, FaultyServer, faulty

pytest_plugins = ["tests.moto_s3"]

SETTING = "AWS_REQUEST_CHECKSUM_CALCULATION"


@pytest.fixture
def old_store(s3_env: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """A store before moto that refuses checksums."""
    monkeypatch.setattr(s3, "_BACKOFF_S", 0.0)
    with faulty(s3_env, late_s=0) as server:
        server.reset(f"{NO_CHECKSUMS}InvalidArgument", None)
        yield server


@pytest.fixture
def adapter(tmp_path: Path) -> Artifact:
    """One file of one part, one of several."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(bytes(range(256)) * (17 << 12))
    return scan_folder("adapter", folder)


@pytest.mark.parametrize(
    "code",
    ["InvalidArgument", "InvalidRequest", "NotImplemented", "XAmzContentSHA256Mismatch", "SignatureDoesNotMatch"],
)
def test_the_message_names_the_setting(code: str, old_store: FaultyServer, bucket: str, adapter: Artifact) -> None:
    old_store.reset(f"{NO_CHECKSUMS}{code}", None)
    with pytest.raises(RunnerError) as error:
        open_store(f"s3://{bucket}/art", endpoint_url=old_store.url).publish(adapter, "one", "adapter")
    assert f"{SETTING}=when_required" in error.value.hint


def test_with_the_setting_it_publishes(
    old_store: FaultyServer, bucket: str, adapter: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(SETTING, "when_required")
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    store = open_store(f"s3://{bucket}/art", endpoint_url=old_store.url)
    published = store.publish(adapter, "one", "adapter")
    assert published.sha256 == adapter.sha256
