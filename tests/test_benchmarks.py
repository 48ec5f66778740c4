"""The commands of the measurements: each one that a page prints runs, from whichever folder holds it."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.common import measure, stages
from benchmarks.common.measure import HERE, RESULTS
from benchmarks.training.train import of_the_library
from runner.cluster import environments
from runner.recipe.load import to_recipe
from stages.sections.recipe import with_sections
from tests.paths import ROOT
from tests.runner.recipes import changed


def test_every_command_that_a_page_prints_is_found() -> None:
    pages = [RESULTS, *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/patches/README.md")]
    names = {name for page in pages for name in re.findall(r"\bbenchmarks\.[a-z_]+", page.read_text())}
    assert len(names) > 15
    assert [name for name in sorted(names) if find_spec(name) is None] == []


def test_every_record_is_rendered_by_the_command_that_made_it() -> None:
    records = [path.stem.partition("-")[0] for path in (HERE / "results").glob("*.json")]
    assert len(records) > 20
    assert [name for name in records if find_spec(f"benchmarks.{name}") is None] == []


def test_no_two_folders_hold_a_command_of_one_name() -> None:
    modules = [path.stem for path in HERE.glob("*/*.py") if path.stem != "__init__"]
    folders = [path.parent.name for path in HERE.glob("*/__init__.py")]
    assert sorted({*modules, *folders}) == sorted([*modules, *folders])


def program(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines]))
    path.chmod(0o755)


def test_a_bare_tool_runs_in_the_environment_of_its_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environments.HOME, str(tmp_path))
    program(tmp_path / "engine" / "bin" / "python", 'printf \'{"module": "%s"}\' "$2" > "$4"')
    monkeypatch.setattr(measure, "gpu_name", lambda: None)
    turn = stages.run_bare("bare_batch", {}, tmp_path / "turn", environment="engine")
    assert turn.figures == {"module": "benchmarks.bare_batch"}


@pytest.mark.parametrize(
    ("trainer", "names"), [("llamafactory", set()), ("axolotl", {"AXOLOTL_DO_NOT_TRACK", "HF_HUB_OFFLINE"})]
)
def test_a_bare_trainer_asks_and_tells_nobody_either_and_keeps_its_own_threads(trainer: str, names: set[str]) -> None:
    recipe = with_sections(to_recipe(changed({"train.trainer": trainer}))[0])
    found = of_the_library(stages.Work(recipe, (), {}, ROOT))
    assert names <= set(found)
    assert "OMP_NUM_THREADS" not in found
    assert names or not found


def test_the_memory_of_a_comparison_is_that_of_its_own_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "nvidia-smi", 'case "$*" in *--id=1*) echo 700;; *) echo 900; echo 700;; esac')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert measure.gpu_memory_mib() == 900
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert measure.gpu_memory_mib() == 700


def test_a_machine_is_described_with_the_versions_of_the_environments_of_its_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environments.HOME, str(tmp_path))
    program(tmp_path / "engine" / "bin" / "python")
    record = environments.Record("engine", "engine-gpu.lock", "0", "3.12.3", {"vllm": "0.29.0", "other": "1"})
    for name, version in record.distributions.items():
        (tmp_path / "engine/lib/python3.11/site-packages" / f"{name}-{version}.dist-info").mkdir(parents=True)
    (tmp_path / "engine" / environments.RECORD).write_text(record.text())
    found = measure.machine()["versions"]
    assert {name: number for name, number in found.items() if "/" in name} == {"engine/vllm": "0.29.0"}
