"""Hostile files: keys that leave their folder, links, and files that run code when they are read."""

from __future__ import annotations

import ast
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from runner.errors import RecipeError, RunnerError
from runner.recipe.load import compose, to_recipe
from runner.storage.artifact import scan_folder
from runner.storage.atomic import write_state
from runner.storage.store import SET_MANIFEST, Store, checked_key, open_store
from stages.data.sources.fetch import fetch_files
from stages.models.adapter import AdapterNotFoundError, Catalogue, fetch_adapter, find_adapter
from stages.models.chat_template import template_text
from stages.serve.other_runs import run_folder
from stages.trainers.output import is_model_file
from tests.paths import ROOT

KEYS = [
    "../x",
    "a/../../x",
    "/etc/passwd",
    "//x",
    "a//b",
    "a/./b",
    ".",
    "..",
    "",
    "a\\..\\b",
    "a\x00b",
    "a\nb",
    "a\x1b[2J",
]
IDS = [
    "../good",
    "good/../good",
    "/good",
    "good/",
    "a/b",
    "..",
    ".",
    "",
    "good\n",
    "good:x",
    "%2e%2e",
    "-x",
    "g\x00",
    "g\uff4fod",
]


class Canary:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with the complete adapter `good`."""
    made = tmp_path / "made"
    made.mkdir()
    (made / "adapter_model.safetensors").write_bytes(b"weights")
    (made / "adapter_config.json").write_text("{}")
    store = open_store(str(tmp_path / "store"))
    store.publish(scan_folder("checkpoint", made), "good", "adapter")
    return store


@pytest.mark.parametrize("key", KEYS)
def test_a_key_of_a_store_stays_below_it(key: str) -> None:
    with pytest.raises(RunnerError, match="not a legal path"):
        checked_key(key)


@pytest.mark.parametrize("key", KEYS)
def test_a_file_of_a_dataset_stays_below_its_source(key: str, tmp_path: Path) -> None:
    for source in (str(tmp_path), "s3://bucket/prefix", "https://example.org/data"):
        with pytest.raises(RunnerError, match="not a legal path"):
            fetch_files(source, [key], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", IDS)
def test_an_adapter_s_id_is_one_plain_name(name: str, store: Store) -> None:
    with pytest.raises(AdapterNotFoundError):
        find_adapter(store, name)


@pytest.mark.parametrize("name", ["../../x", "/etc", "*", "..", "20260101-000000-abcdef/../x", "[a-z]*"])
def test_a_run_s_id_finds_nothing_outside(name: str, tmp_path: Path) -> None:
    (tmp_path / "runs" / "r" / "20260101-000000-abcdef").mkdir(parents=True)
    (tmp_path / "runs" / "r" / "20260101-000000-abcdef" / "manifest.json").write_text("{}")
    recipe = to_recipe(compose(["recipe=viggo_quickstart", f"storage.root={tmp_path}/runs"]))[0]
    with pytest.raises(RunnerError, match="is not below"):
        run_folder(recipe, name, "serve.runs")


@pytest.mark.parametrize("path", ["../../outside", "/tmp/outside", "a/../../../outside"])
def test_a_manifest_s_files_stay_in_the_set(path: str, store: Store, tmp_path: Path) -> None:
    manifest = Path(store.uri) / "good" / SET_MANIFEST
    content = {name: value for name, value in json.loads(manifest.read_text()).items() if name != "self_sha256"}
    content["files"].append({"path": path, "size_bytes": 7, "sha256": content["files"][0]["sha256"]})
    write_state(manifest, content)
    with pytest.raises(RunnerError):
        fetch_adapter(store, "good", tmp_path / "cache")
    assert not list(tmp_path.rglob("outside"))


@pytest.mark.parametrize(
    "name",
    ["adapter_model.bin", "x.pt", "optimizer.PTH", "x.pkl", "a/b.pickle", "x.joblib", "x.npy", "modeling.py", "x.so"],
)
def test_an_adapter_with_files_that_can_run_code_is_not_served(name: str, store: Store, tmp_path: Path) -> None:
    made, canary = tmp_path / "made", tmp_path / "canary"
    (made / name).parent.mkdir(exist_ok=True)
    (made / name).write_bytes(pickle.dumps(Canary(canary)))
    store.publish(scan_folder("checkpoint", made), "evil", "adapter")
    for ask in (find_adapter, lambda store, key: fetch_adapter(store, key, tmp_path / "cache")):
        with pytest.raises(AdapterNotFoundError, match="can run code"):
            ask(store, "evil")
    assert not canary.exists()
    assert not (tmp_path / "cache").exists()
    assert Catalogue(store).ids() == ["good"]


@pytest.mark.parametrize(
    "name", ["optimizer.pt", "rng_state.pth", "training_args.bin", "x.pkl", "x.py", "pytorch_model.bin"]
)
def test_nothing_that_can_run_code_is_published(name: str) -> None:
    assert not is_model_file(Path(name))


def test_a_link_in_the_store_does_not_lead_to_another_file(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "secret"
    outside.write_text("a secret of another file")
    weights = Path(store.uri) / "good" / "adapter_model.safetensors"
    weights.unlink()
    weights.symlink_to(outside)
    with pytest.raises(RunnerError):
        fetch_adapter(store, "good", tmp_path / "cache")
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert not [path for path in kept if b"secret" in path.read_bytes()]


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_something_in_the_store_that_is_not_a_file_is_not_waited_for(kind: str, store: Store, tmp_path: Path) -> None:
    weights = Path(store.uri) / "good" / "adapter_model.safetensors"
    weights.unlink()
    os.mkfifo(weights) if kind == "pipe" else weights.mkdir()
    with pytest.raises((RunnerError, OSError)):
        fetch_adapter(store, "good", tmp_path / "cache")


# The readers of datasets open the one member of a zip file as a stream of limited size; nothing is written to the disk.
READS_ZIP = {"sniff.py", "opened.py"}


def test_the_project_unpacks_no_archive_and_reads_no_pickle() -> None:
    """Links, devices and bombs in archives are nobody's concern while this holds."""
    refused = {"tarfile", "zipfile", "pickle", "cloudpickle", "joblib", "dill", "marshal", "shelve"}
    calls = {"unpack_archive", "extract", "extractall", "eval", "exec", "unsafe_load", "full_load", "instantiate"}
    for file in [*(ROOT / "runner").rglob("*.py"), *(ROOT / "stages").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.split(".")[0] for alias in node.names} | {
                    (getattr(node, "module", "") or "").split(".")[0]
                }
                reads_zip = file.parent == ROOT / "stages" / "data" / "readers" and file.name in READS_ZIP
                assert not names & (refused - {"zipfile"} if reads_zip else refused), file
            elif isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                assert name not in calls, f"{file}:{node.lineno} calls {name}"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["secret", "device", "pipe"])
def test_a_template_is_a_file_of_a_disk_that_is_called_one(kind: str, tmp_path: Path) -> None:
    path, secret = tmp_path / "mine.jinja", tmp_path / "id_rsa"
    secret.write_text("a secret of this machine")
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(secret if kind == "secret" else "/dev/zero")
    with pytest.raises(RunnerError, match="cannot be read"):
        template_text(str(path))


def test_a_variant_that_is_a_link_to_another_program_s_file_is_not_composed(tmp_path: Path) -> None:
    kept, shared = tmp_path / "home" / ".kube" / "config.yaml", tmp_path / "shared" / "mine.yaml"
    for file in (kept, shared):
        file.parent.mkdir(parents=True)
        file.write_text("root: runs\nartifacts: runs/artifacts\n")
    group = tmp_path / "recipes" / "storage"
    group.mkdir(parents=True)
    (group / "kept.yaml").symlink_to(kept)
    (group / "mine.yaml").symlink_to(shared)
    compose(["recipe=viggo_quickstart", "storage=mine"], tmp_path / "recipes")
    with pytest.raises(RecipeError) as caught:
        compose(["recipe=viggo_quickstart", "storage=kept"], tmp_path / "recipes")
    assert "a file that another program keeps" in caught.value.problems[0].message
