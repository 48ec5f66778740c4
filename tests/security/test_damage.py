"""Every file that a run keeps, harmed in every way, before each that reads it: refused or repaired, never believed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.errors import RunnerError
from runner.pipeline.engine.loop import _at_hand
from runner.pipeline.manifest import Manifest, StageRecord
from runner.pipeline.plan import PastRuns
from runner.pipeline.registry import known_stages, load_stage
from runner.pipeline.shared_cache import SharedCache
from runner.recipe.load import compose, to_recipe
from runner.storage import s3
from runner.storage.artifact import Artifact, scan_folder
from runner.storage.atomic import write_state
from runner.storage.store import SET_MANIFEST, Store, open_store
from runner.storage.verify import Digests
from stages.deploy.history import RECORD, before_the_present, place_of
from stages.infer.journal import Journal
from stages.infer.stage import FINISHED, finished
from stages.models.adapter import CONFIG, WEIGHTS, fetch_adapter, find_adapter
from stages.models.cache import made_once
from stages.models.obtain import _is_whole_blob
from stages.sections.recipe import Recipe
from stages.serve.other_runs import predictions_of_run, same_rows, whole
from stages.trainers.checkpoints import check_final, seal
from tests.security.harm import HARMS, harm_file, harmed

pytest_plugins = ["tests.moto_s3"]

# Files of each artifact, as their stages name them.
ARTIFACTS = {
    "train_set": ("train.jsonl", "val.jsonl"),
    "test_set": ("test.jsonl",),
    "model": ("config.json", "model.safetensors", "tokenizer.json"),
    "trained_weights": (WEIGHTS, CONFIG),
    "training_log": ("trainer_log.jsonl", "figures.json"),
    "training_results": ("trainer_log.jsonl",),
    "predictions": ("part-00000.jsonl",),
    "scores": ("scores.json", "mismatches.jsonl"),
    "answers": ("answers.json",),
}
WITHOUT_FILES = {"endpoint"}
IN_A_STORE = {"adapter"}  # below, as a set
SET = (WEIGHTS, CONFIG, "nested/tokenizer.json")


def made(folder: Path, names: tuple[str, ...], content: str, name: str = "thing") -> Artifact:
    for each in names:
        (folder / each).parent.mkdir(parents=True, exist_ok=True)
        (folder / each).write_text(json.dumps({"of": each, "holds": content * 20}))
    return scan_folder(name, folder)


def refused(work: Callable[[], Any]) -> bool:
    with suppress(RunnerError):
        work()
        return False
    return True


@pytest.fixture
def read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files count as large ones, which are not read each time."""
    monkeypatch.setattr("runner.storage.verify._ALWAYS_READ_BYTES", 4)


# An artifact, before the stage that takes it and before the plan that reuses it.


@pytest.mark.usefixtures("read_once")
@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize(("name", "file"), [(name, file) for name in ARTIFACTS for file in ARTIFACTS[name]])
def test_a_harmed_artifact_is_neither_used_nor_reused(name: str, file: str, harm: str, tmp_path: Path) -> None:
    artifact = made(tmp_path / "made", ARTIFACTS[name], "a", name)
    other = made(tmp_path / "other", ARTIFACTS[name], "b", name)
    past, record = PastRuns(tmp_path / "runs"), StageRecord(name="any", status="done", artifacts=[artifact])
    run = SimpleNamespace(shared=None, known={name: artifact}, digests=Digests(tmp_path / "digests"))
    assert _at_hand(run, name) == artifact  # type: ignore[arg-type]
    harm_file(artifact.path / file, harm, (other.path / file).read_bytes())
    assert refused(lambda: _at_hand(run, name))  # type: ignore[arg-type]
    assert name in past.broken(record, {name}, set())


def test_every_artifact_of_the_stages_is_harmed_here() -> None:
    made_by_stages = {name for stage in known_stages() for name in load_stage(stage).provides}
    assert made_by_stages == set(ARTIFACTS) | WITHOUT_FILES | IN_A_STORE


# A set in a store, before those that publish, fetch, serve and share it.


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(s3, "_BACKOFF_S", 0.0)
    if request.param == "folder":
        return open_store(str(tmp_path / "store"))
    return open_store(f"s3://{request.getfixturevalue('bucket')}/prefix")


def harm_stored(store: Store, key: str, harm: str, other: bytes) -> None:
    """Through the store's own blobs, as another client would."""
    data = store.read_bytes(key)
    left = harmed(data, harm, other)
    store._blobs.delete([key])
    if left is not None:
        assert store._blobs.put_new(left, key)


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Artifact, Artifact]:
    """Two valid adapters of the same files."""
    return made(tmp_path / "one", SET, "a"), made(tmp_path / "two", SET, "b")


def published(store: Store, sets: tuple[Artifact, Artifact]) -> tuple[Artifact, Artifact, str]:
    """Both as stored, the first under an adapter's id."""
    adapter_id = f"mine-{sets[0].sha256[:8]}"
    return store.publish(sets[0], adapter_id, "adapter"), store.publish(sets[1], "other", "adapter"), adapter_id


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("file", [*SET, SET_MANIFEST])
def test_a_harmed_set_of_a_store_is_refused_and_publishing_repairs_it(
    file: str, harm: str, store: Store, sets: tuple[Artifact, Artifact], tmp_path: Path
) -> None:
    stored, _, adapter_id = published(store, sets)
    other_file = store.read_bytes(f"other/{file}")
    harm_stored(store, f"{adapter_id}/{file}", harm, other_file)
    assert refused(lambda: fetch_adapter(store, adapter_id, tmp_path / "cache"))  # a replica
    if file == SET_MANIFEST:
        assert refused(lambda: find_adapter(store, adapter_id))  # serve, before it starts
    else:
        assert refused(lambda: store.fetch(stored, tmp_path / "infer"))  # batch inference from S3
        run = SimpleNamespace(shared=None, known={"adapter": stored}, digests=Digests(None))
        assert "://" in stored.uri or refused(lambda: _at_hand(run, "adapter"))  # type: ignore[arg-type]
    if file == SET_MANIFEST and harm == "replaced":  # a set of another content is never overwritten
        assert refused(lambda: store.publish(sets[0], adapter_id, "adapter"))
        return
    assert store.publish(sets[0], adapter_id, "adapter") == stored
    assert scan_folder("adapter", fetch_adapter(store, adapter_id, tmp_path / "cache")).sha256 == sets[0].sha256


def test_another_valid_set_under_an_adapter_s_id_is_not_served(
    store: Store, sets: tuple[Artifact, Artifact], tmp_path: Path
) -> None:
    stored, _, adapter_id = published(store, sets)
    store.delete_set(stored)
    store.publish(sets[1], adapter_id, "adapter")
    assert refused(lambda: fetch_adapter(store, adapter_id, tmp_path / "cache"))


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("file", SET)
def test_a_harmed_copy_on_a_node_is_fetched_again(
    file: str, harm: str, store: Store, sets: tuple[Artifact, Artifact], tmp_path: Path
) -> None:
    _, _, adapter_id = published(store, sets)
    folder = fetch_adapter(store, adapter_id, tmp_path / "cache")
    harm_file(folder / file, harm, store.read_bytes(f"other/{file}"))
    assert scan_folder("adapter", fetch_adapter(store, adapter_id, tmp_path / "cache")).sha256 == sets[0].sha256


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    overrides = [f"storage.root={tmp_path}/runs", f"storage.artifacts={tmp_path}/store", "storage.share_cache=true"]
    return to_recipe(compose(["recipe=viggo_quickstart", *overrides]))[0]


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("file", ["record.json", SET_MANIFEST])
def test_a_harmed_record_that_a_store_shares_is_not_used(file: str, harm: str, recipe: Recipe, tmp_path: Path) -> None:
    cache = SharedCache(recipe, lambda text: None)
    for fingerprint in ("one", "two"):
        record = StageRecord(name="train", status="done", fingerprint=fingerprint, metrics={"of": fingerprint})
        cache.share(record, "run-1")
    folder = tmp_path / "store" / "cache" / "train"
    assert SharedCache(recipe, lambda text: None).find("train", "one")
    harm_file(folder / "one" / file, harm, (folder / "two" / file).read_bytes())
    assert SharedCache(recipe, lambda text: None).find("train", "one") is None


def test_another_valid_record_in_its_place_is_not_used(recipe: Recipe, tmp_path: Path) -> None:
    cache = SharedCache(recipe, lambda text: None)
    for fingerprint in ("one", "two"):
        cache.share(StageRecord(name="train", status="done", fingerprint=fingerprint), "run-1")
    folder = tmp_path / "store" / "cache" / "train"
    shutil.rmtree(folder / "one")
    shutil.copytree(folder / "two", folder / "one")
    assert SharedCache(recipe, lambda text: None).find("train", "one") is None


# Checkpoints, journals and figures that a stage resumes from.


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("file", ["adapter/weights.safetensors", "log/trainer_log.jsonl", "seal-0.json"])
def test_a_harmed_checkpoint_is_not_taken_for_the_result(file: str, harm: str, tmp_path: Path) -> None:
    for name in ("mine", "other"):
        made(tmp_path / name, ("adapter/weights.safetensors", "log/trainer_log.jsonl"), name)
        seal(tmp_path / name, 0, 1, {"loss": 0.5}, name)
    check_final(tmp_path / "mine", "mine")
    harm_file(tmp_path / "mine" / file, harm, (tmp_path / "other" / file).read_bytes())
    assert refused(lambda: check_final(tmp_path / "mine", "mine"))


def test_a_whole_checkpoint_of_another_training_is_not_used(tmp_path: Path) -> None:
    made(tmp_path, ("adapter/weights.safetensors",), "other")
    seal(tmp_path, 0, 1, {"loss": 0.5}, "other")
    assert refused(lambda: check_final(tmp_path, "mine"))


LINE = json.dumps({
    "id": "1", "variant": "base", "prediction": "yes", "reference": "yes", "num_input_tokens": 1,
    "num_generated_tokens": 1, "error": None, "row": {},
})  # fmt: skip


def journal(path: Path, identity: str, text: str = "yes") -> Path:
    with Journal(path, 2, ["base"], identity=identity) as written:
        for index in range(2):
            written.add(index, "base", LINE.replace('"yes", "reference"', f'"{text}", "reference"'))
    return path


@pytest.mark.parametrize(("harm", "left"), [("flipped", 1), ("cut", 1), ("replaced", 0)])
def test_only_the_whole_records_of_a_job_s_own_journal_count(harm: str, left: int, tmp_path: Path) -> None:
    path = journal(tmp_path / "mine", "mine")
    harm_file(path, harm, journal(tmp_path / "other", "other", "no").read_bytes())
    with Journal(path, 2, ["base"], identity="mine") as found:
        assert found.count == left


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("file", [FINISHED, "predictions/part-00000.jsonl"])
def test_harmed_results_of_an_attempt_are_made_again(file: str, harm: str, tmp_path: Path) -> None:
    for name in ("mine", "other"):
        artifact = made(tmp_path / name / "predictions", ("part-00000.jsonl",), name, "predictions")
        metrics = {"num_rows": 1, "rows_per_s": 1.0}
        values = {"fingerprint": name, "sha256": artifact.sha256, "meta": {}, "metrics": metrics}
        write_state(tmp_path / name / FINISHED, values)
    harm_file(tmp_path / "mine" / file, harm, (tmp_path / "other" / file).read_bytes())
    assert finished(tmp_path / "mine", "mine") is None


# The model's folders.


@pytest.mark.usefixtures("read_once")
@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("file", ["m/model.safetensors", "m/config.json", ".m.files.json"])
def test_a_harmed_model_of_the_cache_is_made_again(file: str, harm: str, tmp_path: Path) -> None:
    def make(part: Path) -> None:
        made(part, ("model.safetensors", "config.json"), "a")

    def make_other(part: Path) -> None:
        made(part, ("model.safetensors", "config.json"), "b")

    cache, other = tmp_path / "cache" / "gguf", tmp_path / "other" / "gguf"
    before = scan_folder("model", made_once(cache / "m", make)).sha256
    made_once(other / "m", make_other)
    made_once(cache / "m", make)
    harm_file(cache / file, harm, (other / file).read_bytes())
    assert scan_folder("model", made_once(cache / "m", make)).sha256 == before


@pytest.mark.usefixtures("read_once")
@pytest.mark.parametrize("harm", [harm for harm in HARMS if harm != "deleted"])
@pytest.mark.parametrize("kind", ["sha256", "git"])
def test_a_file_of_the_hub_s_cache_is_known_by_the_digest_in_its_name(kind: str, harm: str, tmp_path: Path) -> None:
    data = b"weights of a model"
    sha1 = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    name = hashlib.sha256(data).hexdigest() if kind == "sha256" else sha1
    blob = tmp_path / "blobs" / name
    (tmp_path / "snapshots" / "commit").mkdir(parents=True)
    blob.parent.mkdir()
    blob.write_bytes(data)
    link = tmp_path / "snapshots" / "commit" / "model.safetensors"
    link.symlink_to(blob)
    assert _is_whole_blob(link, Digests(tmp_path / "digests"))
    harm_file(blob, harm, b"weights of another")
    assert not _is_whole_blob(link, Digests(tmp_path / "digests"))


# What another run has made, which is compared with or served next to.


@pytest.fixture
def other_run(recipe: Recipe, tmp_path: Path) -> tuple[Recipe, Manifest, Path]:
    artifacts = [made(tmp_path / name, ARTIFACTS[name], "a", name) for name in ("predictions", "test_set", "scores")]
    record = StageRecord(name="infer", status="done", artifacts=artifacts)
    for run_id in ("2026-01-01T00-00-00-aaaa", "2026-01-01T00-00-00-bbbb"):
        Manifest(run_id=run_id, recipe="mine", status="done", stages=[record]).save(tmp_path / "runs" / "mine" / run_id)
    return recipe, Manifest(run_id=run_id, recipe="mine", stages=[record]), tmp_path / "runs" / "mine"


@pytest.mark.parametrize("harm", HARMS)
def test_harmed_predictions_of_another_run_are_not_compared_with(
    harm: str, other_run: tuple[Recipe, Manifest, Path], tmp_path: Path
) -> None:
    recipe, manifest, _ = other_run
    artifact = predictions_of_run(recipe, manifest.run_id, "evaluate.compare_run")
    assert whole(artifact, manifest.run_id, "evaluate.compare_run") == artifact
    test_set = manifest.artifact("test_set")
    assert test_set
    assert same_rows(recipe, manifest.run_id, test_set) == artifact
    harm_file(artifact.path / "part-00000.jsonl", harm, b"{}\n")
    assert refused(lambda: whole(artifact, manifest.run_id, "evaluate.compare_run"))
    assert refused(lambda: same_rows(recipe, manifest.run_id, test_set))


def test_the_manifest_of_yet_another_run_in_its_folder_is_not_taken_for_its_own(
    other_run: tuple[Recipe, Manifest, Path],
) -> None:
    recipe, manifest, runs = other_run
    for name in ("manifest.json", ".manifest.copy.json"):
        shutil.copy(runs / "2026-01-01T00-00-00-aaaa" / name, runs / manifest.run_id / name)
    with pytest.raises(RunnerError, match="holds the manifest of 2026-01-01T00-00-00-aaaa"):
        predictions_of_run(recipe, manifest.run_id, "evaluate.compare_run")


# What was deployed, before a rollback to it.

ADDRESS = "http://10.0.0.1:8265"


def deployed(folder: Path, at: float) -> Path:
    values = {"outcome": "deployed", "adapters": [str(at)], "address": ADDRESS, "at": at, "place": place_of(folder)}
    write_state(folder / RECORD, values)
    return folder / RECORD


@pytest.mark.parametrize("harm", HARMS)
def test_a_harmed_record_of_a_deploy_leads_no_rollback(harm: str, tmp_path: Path) -> None:
    runs = [tmp_path / "mine" / f"2026-01-0{day}T00-00-00-aaaa" for day in (1, 2, 3)]
    for run in runs:
        Manifest(run_id=run.name, recipe="mine", status="done").save(run)
    records = [deployed(run / "deploy" / "1", number) for number, run in enumerate(runs)]
    assert before_the_present(tmp_path, "mine", ADDRESS) == runs[1]
    harm_file(records[1], harm, records[0].read_bytes())
    if harm == "deleted":
        assert before_the_present(tmp_path, "mine", ADDRESS) == runs[0]
    else:
        assert refused(lambda: before_the_present(tmp_path, "mine", ADDRESS))
