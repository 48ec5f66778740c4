"""A command is started in a stranger's folder, next to whose recipe lie modules with the names of libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

NAMES = (
    "yaml",
    "hydra",
    "omegaconf",
    "pydantic",
    "ray",
    "json",
    "copy",
    "importlib_metadata",
    "psutil",
    "multiprocessing",
)
EVIL = "import pathlib, sys\npathlib.Path(__file__).with_name('CANARY').touch()\nsys.exit('a module of the folder')\n"
RECIPE = "# @package _global_\ndefaults: [override /dataset: viggo_slice]\n"
TASK = """
import sys
from runner.cluster.session import RaySession
from runner.recipe.schema import Cluster

session = RaySession(Cluster(num_cpus=1, accelerator="cpu"))
session.start()
import ray


@ray.remote(num_cpus=1)
def look(folder):
    import subprocess, sys
    own = subprocess.run([sys.executable, "-c", "import copy"], capture_output=True, text=True)
    return [path for path in sys.path if path in ("", folder)], own.returncode


print(ray.get(look.remote(sys.argv[1])))
session.close()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(EVIL)
    (tmp_path / "hydra_plugins").mkdir()
    (tmp_path / "hydra_plugins" / "evil.py").write_text(EVIL.replace("with_name", "parent.with_name"))
    (tmp_path / "bot.yaml").write_text(RECIPE)
    return tmp_path


def started(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    env.pop("PYTHONSAFEPATH", None)
    return subprocess.run([sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True)


def test_the_modules_would_be_imported(folder: Path) -> None:
    assert "a module of the folder" in started(folder, "-c", "import yaml").stderr
    assert (folder / "CANARY").exists()


@pytest.mark.parametrize("verb", ["validate", "plan", "show"])
def test_a_command_imports_none_of_them(folder: Path, verb: str) -> None:
    done = started(folder, "-m", "runner", verb, "recipe=bot.yaml")
    assert done.returncode == 0, done.stderr
    assert not (folder / "CANARY").exists()


@pytest.mark.timeout(120)
def test_workers_of_a_run_import_none_of_them_and_their_children_neither(folder: Path) -> None:
    program = folder.parent / "program" / "task.py"
    program.parent.mkdir()
    program.write_text(TASK)
    done = started(folder, str(program), str(folder))
    assert done.returncode == 0, done.stderr
    assert "([], 0)" in done.stdout
    assert not (folder / "CANARY").exists()
