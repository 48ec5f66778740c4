"""The wheel of the project: what a user without a checkout gets."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from runner.cluster.environments import build
from tests.paths import ROOT

PARTS = ("runner", "stages", "recipes", "requirements", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        kind = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        kind(ROOT / part, folder / part)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "made", "."]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (made,) = (folder / "made").glob("*.whl")
    return made


def test_it_has_the_recipes_the_tables_and_the_locks_of_the_environments(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    locks = {name.rpartition("/")[2] for name in names if "/data/share/recipe-runner/environments/" in name}
    assert locks == {path.name for path in (ROOT / "requirements" / "environments").glob("*.lock")}
    for file in ("recipes/recipe/viggo_qwen7b.yaml", "stages/engines/vllm/arguments.json"):
        assert file in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]


def test_an_installed_project_is_copied_into_an_environment_with_its_plugin(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed, environment = tmp_path / "installed", tmp_path / "tool"
    (environment / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile", "--target", str(installed)]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; "
        "from runner.cluster.environments import build; build.copy_project(Path(sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-I", "-c", code, str(installed), str(environment)], check=True)
    copied = environment / "lib" / "python3.11" / "site-packages"
    assert (copied / "stages" / "patches" / "vllm_process.py").read_bytes() == Path(
        ROOT, "stages", "patches", "vllm_process.py"
    ).read_bytes()
    (points,) = copied.glob("recipe_runner-*.dist-info/entry_points.txt")
    assert "[vllm.general_plugins]" in points.read_text()


def test_a_size_counts_linked_files_once_and_not_the_environments_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECIPE_RUNNER_ENVIRONMENTS", str(tmp_path / "environments"))
    other = tmp_path / "environments" / "other"
    other.mkdir(parents=True)
    (other / "file").write_bytes(b"x" * 100_000)
    (tmp_path / "one").write_bytes(b"x" * 50_000)
    alone = build._bytes(tmp_path)
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    assert 50_000 <= alone == build._bytes(tmp_path) < 100_000
    assert build._bytes(other) >= 100_000
