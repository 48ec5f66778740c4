"""A package that adds a stage: it is listed, described, checked, planned and run like any other."""

from __future__ import annotations

import io
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from runner.cli.main import main
from runner.cluster.session import RaySession
from runner.errors import EXIT_DONE, EXIT_GATE_REFUSED
from runner.pipeline import engine, registry
from runner.pipeline.context import RunContext
from runner.pipeline.estimates import estimate
from runner.pipeline.plan import PastRuns, build, fingerprint_inputs
from runner.pipeline.rules import check
from runner.recipe.load import compose
from runner.recipe.schema import RunOptions
from runner.report.observers import observers
from runner.report.status import status_of
from runner.report.terminal import Report
from runner.storage.artifact import scan_folder
from runner.testing import assert_problems, load_recipe
from tests.paths import ROOT, TESTS

PACKAGE = TESTS / "example_package"
PIPELINE = "pipeline=[ingest, lengths]"
GIVEN = ["viggo_quickstart", PIPELINE, "stages.lengths.column=input"]


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package as pip would leave it: its module on the path, and its entry points next to it."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    info = tmp_path / "site" / "text_lengths-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups))
    monkeypatch.syspath_prepend(str(info.parent))
    monkeypatch.syspath_prepend(str(PACKAGE))
    forget = registry._third_party.cache_clear
    forget()
    yield
    forget()


def test_list_shows_the_stage_and_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["action=list"]) == EXIT_DONE
    assert "lengths                Makes `lengths`: the shortest and the longest text" in capsys.readouterr().out


@pytest.mark.parametrize("group", [[], ["group=recipe"]])
def test_schema_describes_the_stages_keys(group: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["action=schema", *group]) == EXIT_DONE
    described = json.loads(capsys.readouterr().out)["properties"]["stages"]
    described = described["anyOf"][0] if group else described  # in a file an interpolation may stand there
    lengths = described["properties"]["lengths"]
    column = (lengths["anyOf"][0] if group else lengths)["properties"]["column"]
    assert (column["description"], column["examples"]) == ("Column of the test rows.", ["input"])


def test_the_stages_own_schema_checks_its_keys() -> None:
    expect = {
        "stages.lengths.colunm": "Did you mean stages.lengths.column?",
        "stages.lengths.column": "is required and was not given",
        "stages.lengths.unit": "'words' or 'characters'",
        "stages.lenghts": "Did you mean stages.lengths?",
        "stages.ingest": "without settings",
        "resources.lenghts": "Did you mean resources.lengths?",
    }
    wrong = [
        "stages.lengths.colunm=input",
        "stages.lengths.unit=tokens",
        "stages.lenghts={}",
        "stages.ingest.x=1",
    ]
    assert_problems(expect, "viggo_quickstart", PIPELINE, *wrong, "resources.lenghts.num_workers=1")


def test_a_key_that_the_stage_requires_is_missed_when_it_is_not_set() -> None:
    assert_problems({"stages.lengths.column": "is required"}, "viggo_quickstart", PIPELINE)


def test_problems_of_the_stages_keys_have_an_origin(capsys: pytest.CaptureFixture[str]) -> None:
    main(["recipe=viggo_quickstart", "action=validate", "format=json", PIPELINE, "stages.lengths={column: 3}"])
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert (problem["key"], problem["value"]) == ("stages.lengths.column", 3)
    assert problem["origin"] == "command line: stages.lengths={column: 3}"


def test_defaults_of_the_stage_are_part_of_the_resolved_recipe_and_of_its_fingerprint() -> None:
    recipe = load_recipe(*GIVEN)
    assert recipe.stages == {"lengths": {"column": "input", "unit": "words"}}
    read = [
        fingerprint_inputs(registry.load_stage("lengths"), each, {})["recipe"]
        for each in (recipe, load_recipe(*GIVEN, "stages.lengths.unit=characters"))
    ]
    assert read[0] == {"stages.lengths": {"column": "input", "unit": "words"}}
    assert read[1] != read[0]


def test_plan_has_the_stage_with_its_resources(capsys: pytest.CaptureFixture[str], local: list[str]) -> None:
    resources = "resources.lengths.cpus_per_worker=2"
    assert main([f"recipe={GIVEN[0]}", *GIVEN[1:], resources, *local, "action=plan", "format=json"]) == EXIT_DONE
    step = json.loads(capsys.readouterr().out)["steps"][1]
    assert (step["stage"], step["needs"], step["resources"]["cpus_per_worker"]) == ("lengths", ["test_set"], 2)


def test_the_stage_runs(tmp_path: Path) -> None:
    recipe, _ = check.load_recipe(compose([f"recipe={GIVEN[0]}", *GIVEN[1:]]))
    (tmp_path / "test_set").mkdir()
    (tmp_path / "test_set" / "test.jsonl").write_text(
        '{"columns": {"input": "one two"}}\n{"columns": {"input": "three"}}\n'
    )
    ray = SimpleNamespace(call=lambda function, resources, *args: function(*args))
    made = registry.load_stage("lengths").run(
        RunContext(
            recipe=recipe,
            stage="lengths",
            run_id="r",
            run_dir=tmp_path,
            stage_dir=tmp_path / "lengths",
            fingerprint="f",
            inputs={"test_set": scan_folder("test_set", tmp_path / "test_set")},
            ray=cast(RaySession, ray),
        )
    )
    assert made.note == "1 to 2 words"
    assert [artifact.name for artifact in made.artifacts] == ["lengths"]


SERVICE = ["viggo_quickstart", "pipeline=[ingest, size, board]"]


def run_service(overrides: list[str]) -> tuple[int, dict[str, Any], str]:
    """Exit code, summary, and what the terminal showed."""
    screen = io.StringIO()
    recipe, options = check.load_recipe(compose([f"recipe={SERVICE[0]}", SERVICE[1], *overrides]))
    code, summary = engine.run(recipe, options, "python -m runner", observers(Report(screen)))
    return code, summary, screen.getvalue()


def test_the_stages_own_rules_are_checked() -> None:
    assert_problems({"stages.size.max_files": "must be 0 or more"}, *SERVICE, "stages.size.max_files=-1")


def test_rules_of_a_stage_that_the_recipe_does_not_name_are_not_checked() -> None:
    assert_problems({}, "viggo_quickstart")


@pytest.mark.usefixtures("fake_stages")
def test_the_stages_gate_ends_the_run_as_a_built_in_one_does(local: list[str]) -> None:
    code, summary, shown = run_service([*local, "stages.size.max_files=0"])
    assert (code, summary["status"]) == (EXIT_GATE_REFUSED, "gate_refused")
    assert [stage["name"] for stage in summary["stages"]] == ["ingest", "size"]
    assert summary["gate"]["missed"] == ["1 files, and at most 0 are allowed"]
    assert "The quality gate refused the result" in shown
    assert "1 files, and at most 0 are allowed" in shown


@pytest.mark.usefixtures("fake_stages")
def test_the_stage_has_its_own_keys_in_the_summary(local: list[str]) -> None:
    _, summary, _ = run_service(local)
    assert summary["size"] == 1
    size = next(stage for stage in summary["stages"] if stage["name"] == "size")
    assert (size["status"], size["metrics"]) == ("done", {})


@pytest.mark.usefixtures("fake_stages")
def test_the_stage_is_in_the_report_and_in_the_status(local: list[str], tmp_path: Path) -> None:
    _, summary, _ = run_service(local)
    folder = tmp_path / "runs" / "viggo_quickstart" / summary["run_id"]
    assert "board" in (folder / "report.md").read_text()
    stages = {stage["name"]: stage["status"] for stage in status_of(folder)["stages"]}
    assert stages == {"ingest": "done", "size": "done", "board": "done"}


@pytest.mark.usefixtures("fake_stages")
def test_what_the_stage_provides_goes_with_the_run(local: list[str], tmp_path: Path) -> None:
    _, summary, shown = run_service(local)
    assert "Press Ctrl-C" not in shown
    assert not (tmp_path / "runs" / "viggo_quickstart" / summary["run_id"] / "board.txt").exists()


@pytest.mark.usefixtures("fake_stages")
def test_what_the_stage_provides_stays_up_when_its_own_key_says_so(
    local: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_service(local)
    seen: list[bool] = []

    def look() -> None:
        board = next(Path(local[0].partition("=")[2]).glob("*/*/board.txt"), None)
        seen.append(board is not None)

    monkeypatch.setattr("runner.pipeline.engine.loop.wait_for_interrupt", look)
    code, summary, shown = run_service([*local, "stages.board.stay=true"])
    assert (code, seen) == (EXIT_DONE, [True])
    assert {stage["name"]: stage["status"] for stage in summary["stages"]}["board"] == "done"
    assert "Press Ctrl-C to take it down." in shown


@pytest.mark.usefixtures("fake_stages")
@pytest.mark.parametrize(("change", "is_known"), [("stages.board.stay=true", True), ("stages.size.max_files=7", False)])
def test_the_stages_time_is_known_from_a_run_with_the_same_keys(change: str, is_known: bool, local: list[str]) -> None:
    _, summary, _ = run_service(local)
    recipe, _ = check.load_recipe(compose([f"recipe={SERVICE[0]}", SERVICE[1], *local, change]))
    past = PastRuns(recipe.storage.runs)
    (time,) = estimate(recipe, build(recipe, RunOptions(force=["size"]), past), past)["size"]
    assert (time.what, time.basis == f"as in run {summary['run_id']}") == ("time", is_known)


def test_settings_of_another_kind_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    import text_lengths

    monkeypatch.setattr(text_lengths.Lengths, "settings", dict)
    assert_problems({"pipeline[1]": "not a subclass of runner.recipe.schema.Section"}, "viggo_quickstart", PIPELINE)


def test_a_stage_that_does_not_load_is_listed_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_third_party", lambda: {"lost": "nowhere.at_all:Lost"})
    assert registry.describe_stage("lost") == "cannot be loaded: No module named 'nowhere'"


def test_the_guide_shows_this_package() -> None:
    guide = (ROOT / "docs" / "extending.md").read_text()
    code = (PACKAGE / "text_lengths.py").read_text()
    shown: list[Any] = [code[code.index(start) :] for start in ("class LengthSettings",)]
    assert all(part.strip() in guide for part in shown)
    assert 'lengths = "text_lengths:Lengths"' in guide
