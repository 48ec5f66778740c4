"""`action=serve`: which runs are served, by which recipe, and which stages run for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.cli.main import main
from runner.cli.serve_runs import name_the_sweep, serving
from runner.errors import EXIT_DONE, EXIT_STAGE_FAILED, RunnerError
from runner.pipeline.check import load_recipe
from runner.recipe.load import compose
from runner.sweep.state import Job, open_sweep


@pytest.fixture
def run_ids(fake_stages: Any, local: list[str], tmp_path: Path) -> list[str]:
    for rank in (4, 8):
        assert main(["recipe=viggo_quickstart", f"train.lora_rank={rank}", *local]) == EXIT_DONE
    fake_stages.runs.clear()
    folders = (tmp_path / "runs" / "viggo_quickstart").iterdir()
    return [path.name for path in sorted(folders, key=lambda path: (path / "recipe.json").stat().st_mtime_ns)]


def test_the_first_runs_recipe_is_served_with_the_others_beside(run_ids: list[str], local: list[str]) -> None:
    served, options = serving(compose(["action=serve", f"runs=[{','.join(run_ids)}]", "serve.port=0", *local]))
    recipe = load_recipe(served)[0]
    assert recipe.name == "viggo_quickstart"
    assert recipe.train.lora_rank == 4
    assert (recipe.serve.runs, recipe.serve.port, recipe.serve.keep_alive) == (run_ids[1:], 0, True)
    assert options.only == ["serve", "query"]


def test_only_serve_and_query_run(run_ids: list[str], local: list[str], fake_stages: Any) -> None:
    arguments = ["action=serve", f"runs=[{','.join(run_ids)}]", "serve.keep_alive=false", *local]
    assert main(arguments) == EXIT_DONE
    assert fake_stages.runs == ["serve", "query"]


def test_a_sweeps_best_runs_are_served(run_ids: list[str], local: list[str], tmp_path: Path) -> None:
    sweep, folder = open_sweep(tmp_path / "runs", ["a=1,2"], "command")
    values = [("a", "done", 0.1), ("b", "gate_refused", 0.9), ("c", "failed", None), (run_ids[1], "done", 0.8)]
    for run_id, status, value in [*values, (run_ids[0], "done", 0.7)]:
        sweep.jobs.append(Job(number=0, overrides=[run_id], status=status, run_id=run_id, value=value))  # type: ignore[arg-type]
    sweep.save(folder)
    arguments = name_the_sweep(["action=serve", f"sweep={folder.name}", "top=2", *local], None)
    served, _ = serving(compose(arguments))
    assert served.values["serve"]["runs"] == [run_ids[0]]
    assert served.values["train"]["lora_rank"] == 8


def test_sweep_is_the_group_where_it_names_a_file() -> None:
    assert name_the_sweep(["sweep=optuna", "sweep=20260101-120000-abcdef"], None) == [
        "sweep=optuna", "sweep_id=20260101-120000-abcdef"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "needs the runs to serve"),
        (["runs=[gone]"], "there is no run 'gone'"),
        (["sweep_id=gone"], "there is no sweep 'gone'"),
    ],
)
def test_what_is_not_there_is_named(local: list[str], overrides: list[str], message: str) -> None:
    with pytest.raises(RunnerError, match=message):
        serving(compose(["action=serve", *overrides, *local]))
    assert main(["action=serve", *overrides, *local]) == EXIT_STAGE_FAILED
