"""The command line as a user meets it: exit codes, what is printed where, and that JSON stands alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.cli.main import main
from runner.errors import EXIT_DONE, EXIT_INVALID_RECIPE, EXIT_STAGE_FAILED


def test_help_teaches_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == EXIT_DONE
    text = capsys.readouterr().out
    for word in ("action=", "plan", "validate", "only=[", "force=[", "--config-dir", "exit codes"):
        assert word in text


def test_validate_of_a_broken_recipe_prints_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["recipe=viggo_quickstart", "action=validate", "format=json", "train.lora_rnk=4", "serve.port=-1"])
    document = json.loads(capsys.readouterr().out)
    assert code == EXIT_INVALID_RECIPE
    assert document["ok"] is False
    assert {problem["key"] for problem in document["problems"]} == {"train.lora_rnk", "serve.port"}
    assert set(document["problems"][0]) == {"key", "value", "origin", "message", "hint"}


def test_validate_of_a_good_recipe_says_ok(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe=viggo_quickstart", "action=validate", "format=json"]) == EXIT_DONE
    assert json.loads(capsys.readouterr().out) == {"ok": True, "problems": []}


def test_a_mistake_is_explained_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe=nothing"]) == EXIT_INVALID_RECIPE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "there is no recipe 'nothing'" in captured.err
    assert "Traceback" not in captured.err


def test_list_names_every_shipped_recipe_and_the_users_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text("# @package _global_\n# My own recipe.\nname: mine\n")
    assert main(["action=list", "format=json", "--config-dir", str(tmp_path)]) == EXIT_DONE
    listed = json.loads(capsys.readouterr().out)
    assert {"viggo_quickstart", "viggo_qwen7b", "mine"} <= set(listed["recipe"])
    assert listed["recipe"]["mine"] == "My own recipe."


def test_schema_describes_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["action=schema"]) == EXIT_DONE
    schema = json.loads(capsys.readouterr().out)
    for name, section in schema["$defs"].items():
        for key, field in section["properties"].items():
            assert "description" in field or "$ref" in field or "allOf" in field, f"{name}.{key} has no description"


def test_plan_shows_every_stage_and_why(fake_stages: Any, local: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe=viggo_quickstart", "action=plan", "format=json", *local]) == EXIT_DONE
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert [step["stage"] for step in steps][:3] == ["ingest", "train", "publish"]
    assert steps[0]["why"] == "never ran"
    assert steps[1]["why"] == "needs the new train_set and model"
    assert fake_stages.runs == []


def test_clean_removes_the_recipes_runs_and_nothing_else(
    fake_stages: Any, local: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["recipe=viggo_quickstart", *local]) == EXIT_DONE
    (tmp_path / "runs" / "other").mkdir()
    assert main(["recipe=viggo_quickstart", "action=clean", *local]) == EXIT_DONE
    assert "removed 1 run" in capfd.readouterr().out
    assert not list((tmp_path / "runs" / "viggo_quickstart").iterdir())
    assert (tmp_path / "runs" / "other").exists()


def test_run_prints_plan_stage_lines_and_the_run_folder(
    fake_stages: Any, local: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    fake_stages.fail.add("evaluate")
    assert main(["recipe=viggo_quickstart", *local]) == EXIT_STAGE_FAILED
    shown = capfd.readouterr().out
    assert "made predictions" in shown
    assert "no luck today" in shown
    assert f"continue with: python -m runner recipe=viggo_quickstart {local[0]}" in shown
    assert "report:" in shown


def test_a_sweep_with_a_bad_job_is_refused_before_any_starts(
    fake_stages: Any, local: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["-m", "recipe=viggo_quickstart", "train.lora_rank=4,0", *local])
    assert code == EXIT_INVALID_RECIPE
    assert "train.lora_rank = 0" in capsys.readouterr().err
    assert fake_stages.runs == []


def test_a_sweep_runs_each_value_and_ingests_once(
    fake_stages: Any, local: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["-m", "recipe=viggo_quickstart", "train.lora_rank=4,8", *local]) == EXIT_DONE
    assert fake_stages.runs.count("train") == 2
    assert fake_stages.runs.count("ingest") == 1
