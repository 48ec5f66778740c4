"""What is published under which key, and what never is; uploads to a local folder, no Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.errors import RunnerError
from runner.storage.artifact import Artifact, scan_folder
from runner.storage.store import SET_MANIFEST, open_store
from runner.storage.verify import Digests, damage
from stages.models.weights import Adapter, found_weights
from stages.publish.stage import adapter_id, own_keys, publish_plan, upload
from stages.sections.recipe import Recipe
from tests.stages.models.safetensors_file import write_safetensors

BASE: dict[str, Any] = {
    "name": "viggo_Qwen7b",
    "model": {"source": "org/model", "template": "qwen"},
    "dataset": {"source": "s3://viggo-ds", "prompt": {"user": "{input}", "assistant": "{output}"}},
    "serve": {"model_id": "base"},
}
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "tokenizer.json")


class Handle:
    def __init__(self) -> None:
        self.events: list[tuple[float, float | None, str]] = []

    def update(self, done: float, total: float | None, unit: str, **figures: Any) -> None:
        self.events.append((done, total, unit))


@pytest.fixture
def recipe() -> Recipe:
    return Recipe.model_validate(BASE)


def folder_of(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        if name.endswith(".safetensors"):
            write_safetensors(folder / name, lora_A=[0.5, -1.0], lora_B=[0.0])
        else:
            (folder / name).write_text('{"r": 8}' if name == "adapter_config.json" else name)
    return folder


def trained(folder: Path) -> Artifact:
    artifact = scan_folder("trained_weights", folder)
    return artifact.model_copy(update={"meta": found_weights(artifact, "org/model").meta()})


def artifacts(tmp_path: Path, *extra: str) -> tuple[Artifact, Artifact]:
    weights = trained(folder_of(tmp_path / "trained_weights", *ADAPTER_FILES, *extra))
    return weights, scan_folder("training_log", folder_of(tmp_path / "log", "trainer_log.jsonl"))


def test_adapter_id_is_the_plain_name_and_the_digest(recipe: Recipe) -> None:
    assert adapter_id(recipe, "0123456789abcdef") == "viggo-qwen7b-01234567"


def test_adapter_goes_below_the_model_and_results_below_the_adapter(recipe: Recipe, tmp_path: Path) -> None:
    weights, log = artifacts(tmp_path)
    adapter, results = publish_plan(recipe, weights, log)
    identity = adapter_id(recipe, weights.sha256)
    assert (adapter.name, adapter.key) == ("adapter", f"adapters/base/{identity}")
    assert Adapter.of(adapter.artifact) == Adapter(identity, weights.uri, weights.sha256, 8, "org/model")
    assert (results.name, results.key) == ("training_results", f"training/{identity}/{log.sha256[:8]}")


def test_never_publishes_pickles_or_optimizer_state(recipe: Recipe, tmp_path: Path) -> None:
    weights, log = artifacts(tmp_path, "optimizer.pt", "rng_state.pth", "training_args.bin", "pytorch_model.bin")
    adapter = publish_plan(recipe, weights, log)[0].artifact
    assert tuple(entry.path for entry in adapter.files) == ADAPTER_FILES


def test_leftovers_of_the_training_do_not_change_the_adapters_identity(recipe: Recipe, tmp_path: Path) -> None:
    clean, log = artifacts(tmp_path / "a")
    dirty, _ = artifacts(tmp_path / "b", "optimizer.pt")
    assert publish_plan(recipe, clean, log)[0].key == publish_plan(recipe, dirty, log)[0].key


def test_refuses_a_whole_model(recipe: Recipe, tmp_path: Path) -> None:
    model = trained(folder_of(tmp_path / "model", "config.json", "model.safetensors"))
    log = scan_folder("training_log", folder_of(tmp_path / "log", "trainer_log.jsonl"))
    with pytest.raises(RunnerError, match=r"adapter_config\.json and adapter_model\.safetensors"):
        publish_plan(recipe, model, log)


def test_upload_returns_the_sets_as_stored_and_tells_how_far_it_is(recipe: Recipe, tmp_path: Path) -> None:
    weights, log = artifacts(tmp_path)
    handle = Handle()
    plan = publish_plan(recipe, weights, log)
    adapter, results = upload(str(tmp_path / "store"), None, plan, handle)
    assert adapter.uri == f"{tmp_path}/store/{plan[0].key}"
    assert adapter.sha256 == weights.sha256
    assert (adapter.path / "_manifest.json").is_file()
    assert (results.path / "trainer_log.jsonl").read_text() == "trainer_log.jsonl"
    total = weights.size_bytes + log.size_bytes
    assert max(handle.events) == (total, total, "bytes")


def test_publishing_again_changes_nothing(recipe: Recipe, tmp_path: Path) -> None:
    plan = publish_plan(recipe, *artifacts(tmp_path))
    first = upload(str(tmp_path / "store"), None, plan, Handle())
    assert upload(str(tmp_path / "store"), None, plan, Handle()) == first


def test_what_was_in_the_store_before_the_run_is_not_the_runs_own(recipe: Recipe, tmp_path: Path) -> None:
    store, plan = open_store(str(tmp_path / "store")), publish_plan(recipe, *artifacts(tmp_path))
    store.publish(plan[0].artifact, plan[0].key, "adapter")
    assert own_keys(store, plan, tmp_path / "begun.json") == {plan[1].key}


def test_what_an_attempt_before_a_crash_published_is_the_runs_own(recipe: Recipe, tmp_path: Path) -> None:
    store, plan = open_store(str(tmp_path / "store")), publish_plan(recipe, *artifacts(tmp_path))
    own_keys(store, plan, tmp_path / "begun.json")
    upload(store.uri, None, plan, Handle())
    assert own_keys(store, plan, tmp_path / "begun.json") == {item.key for item in plan}


def test_repeated_training_that_made_the_same_adapter_publishes_its_own_results(recipe: Recipe, tmp_path: Path) -> None:
    weights, log = artifacts(tmp_path)
    slower = scan_folder("training_log", folder_of(tmp_path / "log2", "trainer_log.jsonl", "all_results.json"))
    for results in (log, slower):
        upload(str(tmp_path / "store"), None, publish_plan(recipe, weights, results), Handle())
    assert len(list((tmp_path / "store" / "training").glob("*/*/_manifest.json"))) == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_with_other_than_numbers_are_not_published(recipe: Recipe, tmp_path: Path, value: float) -> None:
    checkpoint, log = artifacts(tmp_path)
    write_safetensors(checkpoint.path / "adapter_model.safetensors", lora_A=[0.5], lora_B=[1.0, value])
    plan = publish_plan(recipe, trained(checkpoint.path), log)
    with pytest.raises(RunnerError, match="NaN or infinity in 1 tensor, the first lora_B"):
        upload(str(tmp_path / "store"), None, plan, Handle())
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("harm", ["flip", "cut", "delete", "manifest cut", "manifest gone", "replaced"])
def test_publishing_again_repairs_what_the_store_has_damaged(recipe: Recipe, tmp_path: Path, harm: str) -> None:
    plan = publish_plan(recipe, *artifacts(tmp_path))
    (adapter, _) = upload(str(tmp_path / "store"), None, plan, Handle())
    weights, manifest = adapter.path / "adapter_model.safetensors", adapter.path / SET_MANIFEST
    whole = weights.read_bytes()
    match harm:
        case "flip":
            weights.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        case "cut":
            weights.write_bytes(whole[:-1])
        case "delete":
            weights.unlink()
        case "replaced":
            write_safetensors(weights, lora_A=[0.5, 1.0], lora_B=[0.0])
        case "manifest cut":
            manifest.write_bytes(manifest.read_bytes()[:-9])
        case _:
            manifest.unlink()
    store = open_store(str(tmp_path / "store"))
    assert own_keys(store, plan, tmp_path / "begun.json") is not None
    assert upload(store.uri, None, plan, Handle())[0].sha256 == adapter.sha256
    assert weights.read_bytes() == whole
    assert damage(adapter, Digests(None)) == ""
    assert store.exists(plan[0].key) == adapter


def test_weights_of_an_earlier_version_ask_for_another_training(recipe: Recipe, tmp_path: Path) -> None:
    weights, log = artifacts(tmp_path)
    with pytest.raises(RunnerError, match="another version of the runner") as refusal:
        publish_plan(recipe, weights.model_copy(update={"meta": {}}), log)
    assert "force=[train,publish]" in refusal.value.hint
