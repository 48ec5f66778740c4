"""Verbs that are asked about runs by name: which run is meant, by which recipe, and which stages run for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.cli.asked import Call
from runner.cli.command_line import read_command_line
from runner.cli.main import main
from runner.cli.named_runs import serving
from runner.cli.overrides import checked_overrides, name_the_sweep
from runner.cli.verbs.table import VERBS
from runner.errors import EXIT_DONE, EXIT_INVALID_RECIPE, EXIT_STAGE_FAILED
from runner.pipeline.rules.check import load_recipe
from runner.recipe.load import compose
from runner.sweep.state import Job, open_sweep


@pytest.fixture
def run_ids(fake_stages: Any, local: list[str], tmp_path: Path) -> list[str]:
    for rank in (4, 8):
        assert main(["recipe=viggo_quickstart", f"train.lora_rank={rank}", *local]) == EXIT_DONE
    fake_stages.runs.clear()
    folders = (tmp_path / "runs" / "viggo_quickstart").iterdir()
    return [path.name for path in sorted(folders, key=lambda path: (path / "recipe.json").stat().st_mtime_ns)]


def call(*words: str) -> Call:
    line = read_command_line(["serve", *words])
    return Call(line, compose(checked_overrides(line, VERBS["serve"])))


def make_sweep(root: Path, run_ids: list[str]) -> Path:
    sweep, folder = open_sweep(root, ["a=1,2"], "command")
    values = [("a", "done", 0.1), ("b", "gate_refused", 0.9), ("c", "failed", None), (run_ids[1], "done", 0.8)]
    for run_id, status, value in [*values, (run_ids[0], "done", 0.7)]:
        sweep.jobs.append(Job(number=0, overrides=[run_id], status=status, run_id=run_id, value=value))  # type: ignore[arg-type]
    sweep.save(folder)
    return folder


def test_the_first_runs_recipe_is_served_with_the_others(run_ids: list[str], local: list[str]) -> None:
    served, options = serving(call(f"runs=[{','.join(run_ids)}]", "serve.port=0", *local))
    recipe = load_recipe(served)[0]
    assert recipe.name == "viggo_quickstart"
    assert recipe.train.lora_rank == 4
    assert (recipe.serve.runs, recipe.serve.port, recipe.serve.keep_alive) == (run_ids[1:], 0, True)
    assert options.only == ["serve", "query"]


def test_only_serve_and_query_run(run_ids: list[str], local: list[str], fake_stages: Any) -> None:
    arguments = ["serve", f"runs=[{','.join(run_ids)}]", "serve.keep_alive=false", *local]
    assert main(arguments) == EXIT_DONE
    assert fake_stages.runs == ["serve", "query"]


@pytest.mark.parametrize(
    "names", [["recipe=viggo_quickstart"], ["runs=[latest]"], ["runs=[@best]"], ["action=serve", "runs=[latest]"]]
)
def test_an_endpoint_starts_again_by_any_name_of_its_run(
    names: list[str], run_ids: list[str], local: list[str], fake_stages: Any, tmp_path: Path
) -> None:
    make_sweep(tmp_path / "runs", run_ids)
    verb = [] if names[0].startswith("action") else ["serve"]
    assert main([*verb, *names, "serve.keep_alive=false", *local]) == EXIT_DONE
    assert fake_stages.runs == ["serve", "query"]


def test_a_sweeps_best_runs_are_served(run_ids: list[str], local: list[str], tmp_path: Path) -> None:
    folder = make_sweep(tmp_path / "runs", run_ids)
    served, _ = serving(call(f"sweep={folder.name}", "top=2", *local))
    assert served.values["serve"]["runs"] == [run_ids[0]]
    assert served.values["train"]["lora_rank"] == 8


def test_a_group_swapped_under_a_finished_run_is_refused_and_not_dropped(
    run_ids: list[str], local: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "runs=[latest]", "cluster=local_gpu", *local]) == EXIT_INVALID_RECIPE
    assert "swaps a whole part" in capsys.readouterr().err


def test_sweep_is_the_group_where_it_names_a_file() -> None:
    assert name_the_sweep(["sweep=optuna", "sweep=20260101-120000-abcdef"], None) == [
        "sweep=optuna", "sweep_id=20260101-120000-abcdef"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "message", "code"),
    [
        ([], "is needed by serve", EXIT_INVALID_RECIPE),
        (["runs=[gone]"], "there is no run 'gone'", EXIT_INVALID_RECIPE),
        (["sweep=gone"], "there is no sweep 'gone'", EXIT_INVALID_RECIPE),
        (["runs=[gone@best]"], "there is no finished job of a sweep for gone@best", EXIT_INVALID_RECIPE),
    ],
)
def test_what_is_not_there_is_named(
    local: list[str], overrides: list[str], message: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *overrides, *local]) == code
    assert message in " ".join(capsys.readouterr().err.split())


def test_status_finds_a_run_by_the_start_of_its_id_and_from_another_folder(
    run_ids: list[str], local: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    capsys.readouterr()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for words in (["runs=[latest]"], [f"runs=[{run_ids[1]}]"], [f"runs=[{run_ids[1][:-1]}]"], []):
        assert main(["status", *words, "format=json"]) == EXIT_DONE
        assert json.loads(capsys.readouterr().out)["run_id"] == run_ids[1]
    assert main(["status", "storage.root=here"]) == EXIT_INVALID_RECIPE


def test_a_run_is_named_by_its_folder_as_status_prints_it(
    run_ids: list[str], local: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs" / "viggo_quickstart" / run_ids[0]
    capsys.readouterr()
    for name in (folder, f"{folder}/", f"viggo_quickstart/{run_ids[0]}"):
        assert main(["status", f"runs=[{name}]", "format=json", *local]) == EXIT_DONE
        assert json.loads(capsys.readouterr().out)["run_id"] == run_ids[0]


@pytest.mark.parametrize(("name", "verb"), [("identity.json", "status"), ("recipe.json", "serve")])
def test_a_run_whose_folder_was_not_copied_whole_is_told_so(
    name: str, verb: str, run_ids: list[str], local: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs" / "viggo_quickstart" / run_ids[0]
    (folder / name).unlink()
    assert main([verb, f"runs=[{run_ids[0]}]", *local]) == EXIT_STAGE_FAILED
    shown = capsys.readouterr().err
    assert f"{folder} is not the whole folder of a run: it has no {name}" in shown
    assert "It cannot be made there" not in shown


def test_an_id_that_fits_several_runs_is_refused_with_their_names(
    run_ids: list[str], local: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", f"runs=[{run_ids[0][:6]}]", *local]) == EXIT_INVALID_RECIPE
    shown = " ".join(capsys.readouterr().err.split())
    assert "2 runs have an id that begins with" in shown
    assert run_ids[0] in shown


def test_report_writes_the_page_of_the_named_run_again(
    run_ids: list[str], local: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "runs" / "viggo_quickstart" / run_ids[0] / "report.html"
    page.unlink()
    capsys.readouterr()
    assert main(["report", f"runs=[{run_ids[0]}]", *local]) == EXIT_DONE
    assert page.is_file()
    assert str(page) in capsys.readouterr().out


def test_an_export_of_a_run_repeats_the_runs_own_command(
    fake_stages: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "recipe=viggo_quickstart", "train.lora_rank=4"]) == EXIT_DONE
    assert main(["export", "runs=[latest]", "target=ray-job", "export_to=out"]) == EXIT_DONE
    text = (tmp_path / "out" / "ray-job.sh").read_text()
    assert "-- python -m runner recipe=viggo_quickstart train.lora_rank=4" in text
    assert "runs=" not in text
