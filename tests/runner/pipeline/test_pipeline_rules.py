"""Stages, their order, and what they do with each other's results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.cli.main import main
from runner.errors import EXIT_INVALID_RECIPE
from runner.pipeline import registry
from runner.pipeline.rules import stages as stage_rules
from tests.runner.recipes import problems

pytestmark = pytest.mark.usefixtures("fake_stages")


def test_an_unknown_stage_is_refused_with_the_nearest() -> None:
    found = problems({"pipeline": ["ingest", "trian"]})
    assert list(found) == ["pipeline[1]"]
    assert found["pipeline[1]"].hint == "Did you mean train?"


def test_a_stage_stands_once() -> None:
    assert "twice" in problems({"pipeline": ["ingest", "train", "ingest"]})["pipeline[2]"].message


def test_a_pipeline_of_more_stages_than_there_can_be_is_one_problem_in_few_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = ",".join(f"stage{number}" for number in range(400))
    assert list(problems({"pipeline": names.split(",")})) == ["pipeline"]
    assert main(["validate", "recipe=viggo_quickstart", f"pipeline=[{names}]"]) == EXIT_INVALID_RECIPE
    assert len(capsys.readouterr().err) < 3000


@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("/", "/ is the root folder"),
        ("~", "is a home folder itself"),
        ("/home", "is a home folder itself"),
        ("/usr", "/usr is a folder of the system"),
        ("/etc/runs", "/etc/runs is a folder of the system"),
        ("/proc/runs", "/proc/runs is a folder of the system"),
        ("/tmp/../dev/x", "is a folder of the system"),
    ],
)
@pytest.mark.parametrize("key", ["root", "artifacts", "cache"])
def test_folders_of_the_system_and_whole_homes_are_not_for_runs(key: str, folder: str, why: str) -> None:
    found = problems({f"storage.{key}": folder})
    assert list(found) == [f"storage.{key}"]
    assert found[f"storage.{key}"].message.startswith("cannot be used: ")
    assert found[f"storage.{key}"].message.endswith(why)


@pytest.mark.parametrize("key", ["storage.root", "storage.cache", "train.storage_path"])
def test_a_file_in_the_way_of_a_folder_is_seen_before_anything_runs(key: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        found = problems({key: str(folder)})
        assert list(found) == [key]
        assert found[key].message == f"cannot be used: {tmp_path}/file is a file, not a folder"
    assert problems({"train.storage_path": str(tmp_path / "file"), "pipeline": ["ingest"]}) == {}


@pytest.mark.parametrize("folder", ["/dev/shm/runs", "~/runs", "/tmp/runs", "/data", "/mnt/runs", "/opt/runs", "."])
def test_other_folders_are(folder: str) -> None:
    assert problems({"storage.root": folder}) == {}


def test_resources_of_no_stage_are_refused() -> None:
    found = problems({"resources.trian": {"num_workers": 2}})
    assert found["resources.trian"].hint == "Did you mean resources.train?"


def test_every_need_must_be_provided_earlier() -> None:
    found = problems({"pipeline": ["ingest", "publish", "train"]})
    assert list(found) == ["pipeline[1]"]
    assert "'trained_weights'" in found["pipeline[1]"].message
    assert found["pipeline[1]"].hint == "Put train before it."


def test_a_tracker_whose_package_is_missing_leads_to_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_rules, "installed", lambda module: False)
    found = problems({"tracking": "mlflow"})
    assert list(found) == ["tracking"]
    assert found["tracking"].hint.endswith("pip install mlflow-skinny")
    monkeypatch.setattr(stage_rules, "installed", lambda module: True)
    assert problems({"tracking": "mlflow"}) == {}


def test_a_stage_whose_package_is_broken_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "BUILTIN", {**registry.BUILTIN, "distil": "nowhere.to_be_found:Distil"})
    found = problems({"pipeline": ["ingest", "distil"]})
    assert "cannot be loaded from nowhere.to_be_found:Distil: No module named" in found["pipeline[1]"].message


@pytest.mark.parametrize(
    ("scaling", "key", "most"),
    [
        ({"min_replicas": 3, "max_replicas": 2}, "min_replicas", "max_replicas=2"),
        ({"min_replicas": 2}, "min_replicas", "max_replicas, which is 1 if not given"),
        ({"min_replicas": 2, "initial_replicas": 1, "max_replicas": 4}, "min_replicas", "initial_replicas=1"),
        ({"min_replicas": 1, "initial_replicas": 5, "max_replicas": 4}, "initial_replicas", "max_replicas=4"),
    ],
)
def test_replicas_are_ordered(scaling: dict[str, int], key: str, most: str) -> None:
    found = problems({"serve.autoscaling": scaling})
    assert list(found) == [f"serve.autoscaling.{key}"]
    assert found[f"serve.autoscaling.{key}"].message == f"must be at most {most}"


@pytest.mark.parametrize(
    "scaling", [{}, {"min_replicas": 0}, {"min_replicas": 1, "initial_replicas": 2, "max_replicas": 2}]
)
def test_replicas_in_order_are_fine(scaling: dict[str, int]) -> None:
    assert problems({"serve.autoscaling": scaling}) == {}


def test_cleanup_deletes_only_what_the_pipeline_makes() -> None:
    found = problems({"cleanup.delete": ["trained_weights", "adaptor"]})
    assert list(found) == ["cleanup.delete[1]"]
    assert found["cleanup.delete[1]"].hint == "Did you mean adapter?"


def test_keep_alive_needs_serve() -> None:
    found = problems({"pipeline": ["ingest", "train"], "serve.keep_alive": True})
    assert list(found) == ["serve.keep_alive"]


@pytest.mark.parametrize(("option", "value"), [("only", ["trian"]), ("start_at", "trian"), ("force", ["trian"])])
def test_options_name_stages_of_the_pipeline(option: str, value: Any) -> None:
    found = problems({option: value})
    assert list(found) == [option]
