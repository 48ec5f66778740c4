"""Shared by all tests: a recipe to vary, and stages that work without Ray."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from runner.pipeline import registry
from runner.pipeline.stage import StageResult
from runner.recipe import hydra
from runner.recipe.load import Composed, compose, to_recipe
from runner.storage.artifact import scan_folder
from runner.testing import changed
from stages.sections.recipe import Recipe
from tests.in_environment import VARIABLE

# How long an example takes says more about the machine than about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of other environments than this one: `python -m tests.in_environment` runs those."""
    here = os.environ.get(VARIABLE)
    marks = ((item, item.get_closest_marker("environment")) for item in items)
    elsewhere = [item for item, mark in marks if (mark.args[0] if mark else None) != here]
    config.hook.pytest_deselected(items=elsewhere)
    left = set(elsewhere)
    items[:] = [item for item in items if item not in left]


@pytest.fixture
def quickstart() -> Recipe:
    return to_recipe(changed(_quickstart(hydra.compose.cpu_dtype()), {}))[0]


@cache
def _quickstart(dtype: str) -> Composed:
    """Composed once: the tests vary the recipe, and not its files. dtype: of `one_kind_of_cpu`, or this machine's."""
    return compose(["recipe=viggo_quickstart"])


class FakeStage:
    """Writes one file that holds what it read; counts its runs in the class."""

    name = "fake"
    version = 1
    reads: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    ephemeral = False
    wants: tuple[str, ...] = ()
    runs: list[str] = []  # noqa: RUF012
    fail: set[str] = set()  # noqa: RUF012

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        return self.wants

    def run(self, ctx: Any) -> StageResult:
        type(self).runs.append(self.name)
        if self.name in FakeStage.fail:
            raise ValueError("no luck today")
        values = ctx.recipe.model_dump(mode="json")
        read = {key: _at(values, key) for key in self.reads}
        made = []
        for name in self.provides:
            folder = ctx.stage_dir / name
            folder.mkdir(exist_ok=True)
            content = {"read": read, "inputs": {key: item.sha256 for key, item in ctx.inputs.items()}}
            (folder / "content.json").write_text(json.dumps(content, sort_keys=True))
            made.append(scan_folder(name, folder))
        return StageResult(made, note=f"made {', '.join(self.provides) or 'nothing'}")


def _at(values: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        values = values[part]
    return values


# What a stage declares before anything runs: the fake ones declare what the real ones do.
DECLARED = (
    "rules", "mappings", "keep_alive", "usage", "deletes", "summary", "estimate", "conditions", "workers",
    "objective", "reached", "figures", "conflict", "stop_s",
)  # fmt: skip


def _fake(name: str, **attributes: Any) -> type[FakeStage]:
    real = type(registry.load_stage(name))
    declared = {each: getattr(real, each) for each in DECLARED if hasattr(real, each)}
    return type(name.title(), (FakeStage,), {"name": name, **declared, **attributes})


Ingest = _fake("ingest", reads=("dataset",), provides=("train_set", "test_set", "model"))
Train = _fake("train", reads=("train",), wants=("train_set", "model"), provides=("trained_weights",))
Publish = _fake("publish", wants=("trained_weights",), provides=("adapter",))
Infer = _fake("infer", reads=("infer",), wants=("test_set", "model", "adapter"), provides=("predictions",))
Evaluate = _fake("evaluate", reads=("evaluate.metrics",), wants=("predictions",), provides=("scores",))
Serve = _fake(
    "serve", reads=("serve.engine_kwargs",), wants=("model", "adapter"), provides=("endpoint",), ephemeral=True
)
Query = _fake("query", reads=("query",), wants=("endpoint", "test_set"), provides=("answers",))
Cleanup = _fake("cleanup", ephemeral=True)


@pytest.fixture
def fake_stages(monkeypatch: pytest.MonkeyPatch) -> type[FakeStage]:
    """Replace every built-in stage by one that writes a file; returns the class that counts the runs."""
    names = ("ingest", "train", "publish", "infer", "evaluate", "serve", "query", "cleanup")
    monkeypatch.setattr(registry, "BUILTIN", {name: f"tests.conftest:{name.title()}" for name in names})
    monkeypatch.setattr(FakeStage, "runs", [])
    monkeypatch.setattr(FakeStage, "fail", set())
    return FakeStage


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In unit tests nothing is forced onto the disk: a busy disk would make them take minutes."""
    if request.node.get_closest_marker("e2e") is None:
        monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home for each test, which is made by whoever writes there: `mktemp` lists those of all tests before."""
    base = tmp_path_factory.mktemp("homes")
    return (base / str(number) for number in count())


@pytest.fixture(autouse=True)
def without_the_users_own_settings(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, homes: Iterator[Path]
) -> None:
    """Unit tests neither read the settings of whoever runs them, nor note their folders in the cache."""
    if request.node.get_closest_marker("e2e") is None:
        home = next(homes)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))


@pytest.fixture(autouse=True)
def with_every_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unit tests judge recipes as on a machine where every environment is made."""
    if request.node.get_closest_marker("e2e") is None:
        monkeypatch.setattr("runner.pipeline.rules.environments.unusable", lambda name, accelerator: "")


@pytest.fixture
def one_kind_of_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes compute in float32 on CPUs, whatever these are: for golden files, which are the same everywhere."""
    monkeypatch.setattr("runner.recipe.hydra.compose.cpu_dtype", lambda: "float32")


@pytest.fixture
def local(tmp_path: Path) -> list[str]:
    """Overrides that keep everything a run writes below the test's own folder."""
    return [f"storage.root={tmp_path}/runs", f"storage.cache={tmp_path}/cache"]
