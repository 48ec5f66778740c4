"""Environments of their own: when one counts as made, what a fingerprint learns of it, and that their locks agree."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import pytest

from runner.cluster import environments
from runner.cluster.environments import (
    Chosen,
    Record,
    build,
    held,
    nodes,
    pinned,
    record,
    runtime_env,
    unusable,
    versions,
)
from runner.cluster.environments import version as version_in
from runner.cluster.environments.nodes import differing, record_here, require_environment
from runner.cluster.session import RaySession
from runner.errors import RunnerError
from runner.recipe.schema import Cluster, StageResources
from runner.storage.atomic import unsealed
from stages.engines.base import ENGINES
from stages.trainers.base import TRAINERS
from tests.paths import ROOT

PYTHON = ".".join(map(str, sys.version_info[:3]))
RAY = installed_version("ray")
PACKAGES = "lib/python3.11/site-packages"
LOCK = f"# a lock\nray=={RAY}\nSome_Tool==1.2\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of environments in which `tool` is made, and the folder of its lock."""
    monkeypatch.setenv(environments.HOME, str(tmp_path / "environments"))
    monkeypatch.setattr(environments, "LOCKS", tmp_path)
    (tmp_path / "tool-cpu.lock").write_text(LOCK)
    made(tmp_path / "environments" / "tool")
    return tmp_path


def made(folder: Path, **differs: Any) -> None:
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    (folder / "bin" / "python").write_text("#!/bin/sh\n")
    (folder / "bin" / "python").chmod(0o755)
    made_of = record_of(folder.parent.parent / "tool-cpu.lock", **differs)
    shutil.rmtree(folder / PACKAGES, ignore_errors=True)
    for name, version in made_of.distributions.items():
        (folder / PACKAGES / f"{name.replace('-', '_').title()}-{version}.dist-info").mkdir(parents=True)
    (folder / environments.RECORD).write_text(made_of.text())


def record_of(lock: Path, **differs: Any) -> Record:
    values = {
        "name": "tool", "lock": lock.name, "lock_sha256": environments.digest(lock), "python": PYTHON,
        "distributions": pinned(lock.read_text().splitlines()),
    }  # fmt: skip
    return Record(**{**values, **differs})


def test_an_environment_of_its_lock_with_this_python_and_ray_is_used(folder: Path) -> None:
    assert unusable("tool", "cpu") == ""
    assert record("tool") == record_of(folder / "tool-cpu.lock")


@pytest.mark.parametrize(
    ("differs", "reason"),
    [
        ({"lock_sha256": "0"}, "another lock than tool-cpu.lock is now"),
        ({"python": "3.9.1"}, "has Python 3.9.1, and the runner has"),
        ({"distributions": {"ray": "1.0"}}, "has Ray 1.0, and the runner has"),
        ({"distributions": {}}, "has Ray None"),
    ],
)
def test_an_environment_of_other_versions_is_not_used(folder: Path, differs: dict[str, Any], reason: str) -> None:
    made(folder / "environments" / "tool", **differs)
    assert reason in unusable("tool", "cpu")


@pytest.mark.parametrize("lost", ["environment.json", "bin/python"])
def test_an_environment_without_its_record_or_interpreter_is_not_used(folder: Path, lost: str) -> None:
    (folder / "environments" / "tool" / lost).unlink()
    assert "is not made" in unusable("tool", "cpu")


@pytest.mark.parametrize("text", ["", "[]", '{"name": "tool"}', "\xff"])
def test_a_damaged_record_counts_as_none(folder: Path, text: str) -> None:
    (folder / "environments" / "tool" / environments.RECORD).write_bytes(text.encode("latin-1"))
    assert record("tool") is None


def test_a_record_is_not_believed_when_a_byte_of_it_differs(folder: Path) -> None:
    path = folder / "environments" / "tool" / environments.RECORD
    whole = path.read_text()
    for word, other in (
        ("1.2", "1.3"),
        (RAY, "1.0"),
        ("cpu.lock", "gpu.lock"),
        (PYTHON, "3.9.1"),
        ('"name"', '"nama"'),
    ):
        path.write_text(whole.replace(word, other))
        assert record("tool") is None, word
    assert "is damaged or of other packages than are there" in unusable("tool", "cpu")
    path.write_text(whole)
    assert unusable("tool", "cpu") == ""


def test_the_record_of_another_environment_or_of_another_time_is_not_believed(folder: Path) -> None:
    path = folder / "environments" / "tool" / environments.RECORD
    path.write_text(record_of(folder / "tool-cpu.lock", name="other").text())
    assert record("tool") is None
    (folder / "tool-cpu.lock").write_text(LOCK.replace("1.2", "1.3"))
    path.write_text(record_of(folder / "tool-cpu.lock").text())  # valid, and of what is not installed
    assert record("tool") is None
    assert "is damaged or of other packages than are there" in unusable("tool", "cpu")


def test_an_environment_for_another_accelerator_is_not_used(folder: Path) -> None:
    (folder / "tool-gpu.lock").write_text(LOCK + "cuda==13\n")
    assert "another lock than tool-gpu.lock" in unusable("tool", "gpu")


def test_where_only_packages_are_installed_the_record_alone_counts(folder: Path) -> None:
    (folder / "tool-cpu.lock").unlink()
    assert unusable("tool", "cpu") == ""
    assert version_in("tool", "some-tool", "cpu") == "1.2"


def test_an_environment_made_for_cpus_tells_nothing_about_that_for_gpus(folder: Path) -> None:
    (folder / "tool-gpu.lock").write_text(LOCK.replace("1.2", "1.3"))
    assert version_in("tool", "some-tool", "gpu") == "1.3"
    assert version_in("tool", "some-tool", "cpu") == "1.2"


def test_workers_get_the_interpreter_of_the_environment_and_all_that_the_recipe_gives(folder: Path) -> None:
    given = {"env_vars": {"A": "1"}, "py_executable": "/recipe/python"}
    expected = str(folder / "environments" / "tool" / "bin" / "python")
    assert runtime_env("tool", given) == {"env_vars": {"A": "1"}, "py_executable": expected}
    assert runtime_env(None, {"env_vars": {"A": "1"}}) == {"env_vars": {"A": "1"}}


@pytest.mark.parametrize("is_made", [True, False])
def test_a_fingerprint_has_the_digest_of_the_lock_and_versions_made_or_not(folder: Path, is_made: bool) -> None:
    if not is_made:
        (folder / "environments" / "tool" / environments.RECORD).unlink()
    digest = environments.digest(folder / "tool-cpu.lock")
    assert versions("tool", ["some_tool", "torch"], "cpu") == {
        "some_tool": "1.2", "torch": None, "environment tool": digest,
    }  # fmt: skip


def test_a_fingerprint_follows_the_lock(folder: Path) -> None:
    (folder / "environments" / "tool" / environments.RECORD).unlink()
    before = versions("tool", ["some-tool"], "cpu")
    (folder / "tool-cpu.lock").write_text(LOCK.replace("1.2", "1.3"))
    assert versions("tool", ["some-tool"], "cpu") != before
    assert held("other", "cpu") is None


def test_nodes_without_the_environment_or_with_another_are_named(folder: Path) -> None:
    own = record_of(folder / "tool-cpu.lock")
    records = {"10.0.0.1": own, "10.0.0.2": None, "10.0.0.3": record_of(folder / "tool-cpu.lock", lock_sha256="f" * 64)}
    lines = differing(records, own)
    assert lines[0] == "node 10.0.0.2 does not have it"
    assert lines[1].startswith("node 10.0.0.3 has it of another lock (ffffffff, expected ")
    assert len(lines) == 2
    assert differing({"10.0.0.1": own}, None) == []


def test_a_stage_whose_environment_is_gone_fails_with_the_command_that_makes_it(folder: Path) -> None:
    chosen, cluster = Chosen("tool", "train.trainer", "mine"), Cluster()
    require_environment(RaySession(cluster), cluster, StageResources(), chosen)
    (folder / "environments" / "tool" / environments.RECORD).unlink()
    with pytest.raises(RunnerError, match=r"train\.trainer=mine runs in the environment tool.*is not made") as failure:
        require_environment(RaySession(cluster), cluster, StageResources(), chosen)
    assert "make env NAME=tool" in failure.value.hint


@pytest.mark.parametrize("allowed", ["1", "0"])
def test_a_missing_environment_is_made_by_the_stage_only_where_the_operator_allows_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, allowed: str
) -> None:
    monkeypatch.setenv(environments.MAKE, allowed)
    (folder / "environments" / "tool" / environments.RECORD).unlink()
    monkeypatch.setattr(nodes, "build", lambda name, accelerator: made(environments.folder(name)))
    chosen, cluster = Chosen("tool", "train.trainer", "mine"), Cluster()
    with nullcontext() if allowed == "1" else pytest.raises(RunnerError):
        require_environment(RaySession(cluster), cluster, StageResources(), chosen)


def test_a_node_makes_it_in_the_folder_of_the_driver(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = folder / "nodes"
    monkeypatch.setattr(nodes, "build", lambda name, accelerator: made(environments.folder(name)))
    assert record_here("tool", str(home), None) is None
    assert record_here("tool", str(home), "cpu") == record_of(folder / "tool-cpu.lock")


def test_what_is_there_is_not_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_install", lambda *given: pytest.fail("installs again"))
    assert not build.build("tool", "cpu")
    with pytest.raises(RunnerError, match=r"there is no .*other-cpu\.lock") as failure:
        build.build("other", "cpu")
    assert failure.value.hint == "There are: tool."


def test_an_environment_whose_making_fails_has_no_record(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "tool-cpu.lock").write_text(LOCK + "more==1\n")

    def fail(*given: Any) -> None:
        raise RunnerError("no network")

    monkeypatch.setattr(build, "_install", fail)
    with pytest.raises(RunnerError, match="no network"):
        build.build("tool", "cpu")
    assert record("tool") is None


def test_packages_are_looked_for_where_the_machines_pip_is_told_to_look() -> None:
    settings = build.settings_in(
        [
            ":env:.find-links='/opt/wheels'", "global.cert='/c.crt'", "global.find-links='/opt/wheels\\n/more'",
            "global.extra-index-url='https://x/simple file:///y/simple'", "install.index-url='https://z/simple'",
        ]
    )  # fmt: skip
    assert settings["cert"] == ["/c.crt"]
    assert build.index_options(settings) == [
        "--find-links", "/opt/wheels", "--find-links", "/more", "--default-index", "https://z/simple",
        "--index", "https://x/simple",
    ]  # fmt: skip
    assert build.index_options({}) == []


SHARED = ("ray", "pydantic", "pydantic-core", "numpy", "pandas", "pyarrow", "boto3")
LOCKS = sorted((ROOT / "requirements" / "environments").glob("*.lock"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_what_crosses_between_processes_has_one_version_in_all_locks(lock: Path) -> None:
    driver = pinned((ROOT / "requirements" / f"{lock.stem.rpartition('-')[2]}.lock").read_text().splitlines())
    own = pinned(lock.read_text().splitlines())
    assert {name: own.get(name) for name in SHARED} == {name: driver[name] for name in SHARED}
    assert "hydra-core" not in own


def test_every_environment_has_a_lock_for_each_accelerator() -> None:
    inputs = (path.stem for path in (ROOT / "requirements" / "environments").glob("*.in"))
    names = {re.sub("-(cpu|gpu)$", "", name) for name in inputs} - {"shared"}
    assert {lock.stem for lock in LOCKS} == {f"{name}-{kind}" for name in names for kind in ("cpu", "gpu")}


def test_the_record_is_json_that_reads_back(folder: Path) -> None:
    text = record_of(folder / "tool-cpu.lock").text()
    assert Record(**unsealed(text.encode(), "the record")) == record_of(folder / "tool-cpu.lock")


def test_the_table_of_versions_in_the_docs_is_what_the_locks_hold() -> None:
    (rows,) = re.findall(r"\| Environment \|.*?\n\n", (ROOT / "docs" / "operations.md").read_text(), re.S)
    names = {"LLaMA-Factory": "llamafactory", "vLLM": "vllm"}
    for row in rows.strip().splitlines()[2:]:
        title, holds = [cell.strip() for cell in row.split("|")[1:3]]
        lock = "gpu.lock" if "gpu.lock" in title else f"environments/{title.strip('`')}-gpu.lock"
        held_there = pinned((ROOT / "requirements" / lock).read_text().splitlines())
        for each in holds.split(", "):
            name, version = each.split()
            assert held_there[names.get(name, name).lower()] == version, f"{title}: {each}"


def test_what_workers_of_other_environments_import_needs_no_hydra() -> None:
    modules = "stages.ingest.asked, stages.ingest.preview, stages.trainers.worker.loop, stages.infer.requests"
    modules += "".join(f", {target.partition(':')[0]}" for target in (*TRAINERS.values(), *ENGINES.values()))
    code = f"import sys; sys.modules.update(hydra=None, omegaconf=None); import {modules}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_runners_own_packages_are_linked_from_the_same_place_and_compiled(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(build, "_run", lambda *command, **how: commands.append(command))
    monkeypatch.setattr(build, "_uv", lambda: "uv")
    lock = folder / "tool-cpu.lock"
    assert build.main(["--own", str(lock)]) == 0
    packages, project = commands
    assert packages[: packages.index("pip")] == project[: project.index("pip")]
    assert ("--cache-dir", str(environments.home() / ".cache")) == packages[3:5]
    assert {"--compile-bytecode", "hardlink", "--no-deps", sys.executable, str(lock)} <= set(packages)
    assert {"--editable", "--no-deps", sys.executable} <= set(project)


def test_the_builder_needs_no_package_that_is_not_pythons() -> None:
    command = [sys.executable, "-S", "-m", "runner.cluster.environments.build", "--help"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, env={}).returncode == 0
