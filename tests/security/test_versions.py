"""A bucket with versions: those of an earlier publish, all valid, laid over the newer ones."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.errors import RunnerError
from runner.pipeline.manifest import StageRecord
from runner.pipeline.shared_cache import SharedCache
from runner.recipe.load import compose, to_recipe
from runner.storage import s3
from runner.storage.artifact import Artifact, scan_folder
from runner.storage.store import SET_MANIFEST, Store, open_store
from stages.infer.stage import local_adapter
from stages.models.adapter import CONFIG, WEIGHTS, AdapterNotFoundError, Catalogue, fetch_adapter, find_adapter
from stages.models.weights import Adapter
from stages.serve.fit import fit_to_serve

pytest_plugins = ["tests.moto_s3"]

LAID = {"the manifest": [SET_MANIFEST], "a file": [WEIGHTS], "all": [SET_MANIFEST, WEIGHTS, CONFIG]}


class Bucket:
    """A store of adapters in a bucket with versions, and its recipe."""

    def __init__(self, client: Any, name: str, folder: Path) -> None:
        self.client, self.name, self.folder = client, name, folder
        client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        store = f"storage.artifacts=s3://{name}"
        self.recipe: Any = to_recipe(compose(["recipe=viggo_quickstart", store, f"storage.root={folder}/runs"]))[0]
        self.store: Store = open_store(f"s3://{name}")

    def made(self, content: str) -> Artifact:
        """An adapter on this machine."""
        folder = self.folder / content
        folder.mkdir()
        for file in (WEIGHTS, CONFIG):
            (folder / file).write_text(f'{{"{content}": "{file}"}}')
        meta = Adapter("mine", "", "", 8, "org/model").meta()
        return scan_folder("adapter", folder).model_copy(update={"meta": meta})

    def published(self, earlier: Artifact, later: Artifact, key: str) -> Artifact:
        """The later one, as it was recorded, where the earlier one was before."""
        self.store.delete_set(self.store.publish(earlier, key, "adapter"))
        stored = self.store.publish(later, key, "adapter")
        return stored.model_copy(update={"meta": {**stored.meta, "adapter_id": key.rpartition("/")[2]}})

    def lay(self, key: str) -> None:
        """The oldest version of the object over the present one."""
        versions = self.client.list_object_versions(Bucket=self.name, Prefix=key)["Versions"]
        *_, oldest = [each for each in versions if each["Key"] == key]  # the newest is the first
        assert not oldest["IsLatest"]
        source = {"Bucket": self.name, "Key": key, "VersionId": oldest["VersionId"]}
        self.client.copy_object(Bucket=self.name, Key=key, CopySource=source)

    def context(self, adapter: Artifact) -> Any:
        inputs = {"adapter": adapter}
        return SimpleNamespace(inputs=inputs, input=inputs.get, recipe=self.recipe, stage_dir=self.folder / "infer")


@pytest.fixture
def bucket(s3_client: Any, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    monkeypatch.setattr(s3, "_BACKOFF_S", 0.0)
    return Bucket(s3_client, bucket, tmp_path)


@pytest.mark.parametrize("laid", LAID)
@pytest.mark.parametrize("named", ["by its digest", "by hand"])
def test_an_earlier_publish_laid_over_the_recorded_one_is_never_taken_for_it(
    named: str, laid: str, bucket: Bucket, tmp_path: Path
) -> None:
    earlier, later = bucket.made("earlier"), bucket.made("later")
    adapter_id = f"mine-{later.sha256[:8]}" if named == "by its digest" else "mine"
    key = f"adapters/base/{adapter_id}"
    adapter = bucket.published(earlier, later, key)
    adapters = open_store(f"s3://{bucket.name}/adapters/base")
    assert fit_to_serve(adapter, None, None) == Adapter.of(adapter)
    for file in LAID[laid]:
        bucket.lay(f"{key}/{file}")
    if laid == "the manifest":  # batch inference goes by the run's record, and these are its files
        folder = local_adapter(bucket.context(adapter))
        assert folder is not None
        assert scan_folder("adapter", folder).sha256 == later.sha256
    else:
        with pytest.raises(RunnerError, match=r"not the|is damaged"):
            local_adapter(bucket.context(adapter))
    if laid == "a file":  # which its digest in the manifest tells
        with pytest.raises(RunnerError, match=WEIGHTS):
            fetch_adapter(adapters, adapter_id, tmp_path / "cache")
        assert bucket.store.publish(later, key, "adapter").sha256 == later.sha256  # repairs it
        assert fetch_adapter(adapters, adapter_id, tmp_path / "cache").name == later.sha256
        return
    with pytest.raises(RunnerError, match="another"):  # serve, before it starts
        fit_to_serve(adapter, None, None)
    with pytest.raises(RunnerError, match="already holds another set"):
        bucket.store.publish(later, key, "adapter")
    with pytest.raises(RunnerError, match="already holds another set"):
        bucket.store.delete_set(adapter)
    assert (adapter_id in Catalogue(adapters).ids()) is (named == "by hand")
    if named == "by its digest":  # as publish names all: a replica knows what it is asked for
        with pytest.raises(AdapterNotFoundError, match="another one"):
            find_adapter(adapters, adapter_id)
    if named == "by its digest" or laid == "the manifest":
        with pytest.raises(RunnerError):
            fetch_adapter(adapters, adapter_id, tmp_path / "cache")
    else:  # a name says nothing of the content: the earlier set, which is whole
        assert fetch_adapter(adapters, adapter_id, tmp_path / "cache").name == earlier.sha256


@pytest.mark.parametrize("laid", LAID)
def test_a_shared_result_whose_adapter_is_an_earlier_one_by_now_is_not_reused(laid: str, bucket: Bucket) -> None:
    adapter = bucket.published(bucket.made("earlier"), bucket.made("later"), "adapters/base/mine")
    record = StageRecord(name="publish", status="done", fingerprint="f", artifacts=[adapter])
    assert SharedCache(bucket.recipe, print).share(record, "run-1").shared
    for file in LAID[laid]:
        bucket.lay(f"adapters/base/mine/{file}")
    found = SharedCache(bucket.recipe, print).find("publish", "f")
    assert (found is not None) is (laid == "a file")  # whose content is looked at where it is used
    if found is not None:
        with pytest.raises(RunnerError, match=WEIGHTS):
            local_adapter(bucket.context(found.artifacts[0]))


@pytest.mark.parametrize("laid", [["record.json"], [SET_MANIFEST], ["record.json", SET_MANIFEST]])
def test_an_earlier_record_that_a_store_shares_is_used_whole_or_not_at_all(laid: list[str], bucket: Bucket) -> None:
    remarks: list[str] = []
    for run in ("earlier", "later"):
        record = StageRecord(name="train", status="done", fingerprint="f", metrics={"of": run})
        SharedCache(bucket.recipe, remarks.append).share(record, run)
        with suppress(RunnerError):
            if run == "earlier" and (there := bucket.store.exists("cache/train/f")):
                bucket.store.delete_set(there)
    for file in laid:
        bucket.lay(f"cache/train/f/{file}")
    found = SharedCache(bucket.recipe, remarks.append).find("train", "f")
    if len(laid) == 2:
        assert found is not None
        assert (found.metrics, found.origin_run) == ({"of": "earlier"}, "earlier")
    else:
        assert found is None
        assert "record.json is damaged" in remarks[-1]
