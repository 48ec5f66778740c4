"""The command line as a user meets it: exit codes, what is printed where, and that JSON stands alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runner.cli.main import main
from runner.cli.verbs.table import VERBS
from runner.errors import EXIT_DONE, EXIT_INVALID_RECIPE, EXIT_STAGE_FAILED
from tests.paths import ROOT


def printed_error(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed as an error, in one line."""
    return " ".join(capsys.readouterr().err.split())


def test_without_arguments_help_is_printed_and_nothing_starts(
    fake_stages: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == EXIT_DONE
    assert "usage: python -m runner" in capsys.readouterr().out
    assert main(["-m"]) == EXIT_INVALID_RECIPE
    assert "usage: python -m runner" in capsys.readouterr().out
    assert fake_stages.runs == []


@pytest.mark.parametrize("arguments", [["--help"], ["help"], *([name, "--help"] for name in VERBS)], ids=" ".join)
def test_every_page_of_help_fits_eighty_columns(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == EXIT_DONE
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert ("--config-dir" in text) == ("init" not in arguments)


def test_the_overview_teaches_every_verb_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == EXIT_DONE
    text = capsys.readouterr().out
    for word in (*VERBS, "recipe=path/to/mine.yaml", "exit codes", "settings.yaml", "completion bash"):
        assert word in text


@pytest.mark.parametrize("arguments", [["export", "--help"], ["help", "export"], ["action=export", "--help"]])
def test_a_verbs_help_shows_its_own_options_and_an_example(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == EXIT_DONE
    text = capsys.readouterr().out
    assert "target=kuberay" in text
    assert "python -m runner export recipe=viggo_quickstart" in text
    assert "row=" not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["vlaidate", "recipe=viggo_quickstart"], "Did you mean validate?"),
        (["recipe=viggo_quickstart", "action=paln"], "Did you mean plan?"),
        (["help", "sttus"], "Did you mean status?"),
        (["validate", "plan", "recipe=viggo_quickstart"], "names several verbs"),
        (["mine/recipe/bot.yaml"], "recipe=mine/recipe/bot.yaml"),
        (["validate", "--train.lora_rank=8"], "train.lora_rank=8"),
        (["validate", "--conifg-dir", "mine"], "Did you mean --config-dir?"),
        (["validate", "--config-dir"], "expected one argument"),
        (["plan", "recipe=viggo_quickstart", "row=3"], "is not an option of plan, but of preview"),
        (["validate"], "is needed by validate"),
        (["train.lora_rank=4"], "is needed by run"),
        (["-m", "clean", "recipe=viggo_quickstart"], "is not an option of clean"),
        (["completion", "fish"], "bash or zsh"),
        (["diff", "recipe=viggo_quickstart"], "is needed by diff"),
        (["status", "run=latest"], "Did you mean runs?"),
        (["status", "storage.rot=elsewhere"], "Did you mean storage.root?"),
        (["serve", "runs=[latest]", "serv.port=1"], "Did you mean serve?"),
        (["logs", "job=x", "clustr.address=http://10.0.0.1:8265"], "Did you mean cluster?"),
        (["validate", "recipe=~nobody-here/x.yaml"], "home of a user that this machine does not have"),
        (["validate", "--config-dir", "~nobody-here", "recipe=x"], "home of a user that this machine does not have"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_wrong_command_line_is_refused_with_what_to_write(
    arguments: list[str], words: str, fake_stages: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == EXIT_INVALID_RECIPE
    assert words in printed_error(capsys)
    assert fake_stages.runs == []


@pytest.mark.parametrize("verb", [["validate"], ["action=validate"]])
def test_validate_of_a_broken_recipe_prints_one_json_document(
    verb: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([*verb, "recipe=viggo_quickstart", "format=json", "train.lora_rnk=4", "serve.port=-1"])
    document = json.loads(capsys.readouterr().out)
    assert code == EXIT_INVALID_RECIPE
    assert document["ok"] is False
    assert {problem["key"] for problem in document["problems"]} == {"train.lora_rnk", "serve.port"}
    assert set(document["problems"][0]) == {"key", "value", "origin", "message", "hint"}


def test_validate_of_a_good_recipe_says_ok(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "recipe=viggo_quickstart", "format=json"]) == EXIT_DONE
    assert json.loads(capsys.readouterr().out) == {"ok": True, "problems": []}


def test_a_mistake_is_explained_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe=nothing"]) == EXIT_INVALID_RECIPE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "there is no recipe 'nothing'" in captured.err
    assert "Traceback" not in captured.err


def test_what_the_terminal_s_encoding_lacks_is_shown_as_its_code() -> None:
    command = [sys.executable, "-m", "runner", "show", "recipe=viggo_quickstart", "dataset.prompt.system='Grüße ☃'"]
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, encoding="ascii", timeout=60)
    assert done.returncode == EXIT_DONE, done.stderr
    assert r"Gr\xfc\xdfe \u2603" in done.stdout


def test_list_names_every_shipped_recipe_and_the_users_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text("# @package _global_\n# My own recipe.\nname: mine\n")
    assert main(["list", "format=json", "--config-dir", str(tmp_path)]) == EXIT_DONE
    listed = json.loads(capsys.readouterr().out)
    assert {"viggo_quickstart", "viggo_qwen7b", "mine"} <= set(listed["recipe"])
    assert listed["recipe"]["mine"] == "My own recipe."


def test_schema_describes_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == EXIT_DONE
    schema = json.loads(capsys.readouterr().out)
    for name, section in schema["$defs"].items():
        for key, field in section["properties"].items():
            assert "description" in field or "$ref" in field or "allOf" in field, f"{name}.{key} has no description"


def test_plan_shows_every_stage_and_why(fake_stages: Any, local: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "recipe=viggo_quickstart", "format=json", *local]) == EXIT_DONE
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert [step["stage"] for step in steps][:3] == ["ingest", "train", "publish"]
    assert steps[0]["why"] == "never ran"
    assert steps[1]["why"] == "needs the new train_set and model"
    assert fake_stages.runs == []


@pytest.mark.parametrize("first", [["recipe=viggo_quickstart"], ["run", "recipe=viggo_quickstart"]])
def test_run_prints_plan_stage_lines_and_the_run_folder(
    first: list[str], fake_stages: Any, local: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    fake_stages.fail.add("evaluate")
    assert main([*first, *local]) == EXIT_STAGE_FAILED
    shown = capfd.readouterr().out
    assert "made predictions" in shown
    assert "no luck today" in shown
    assert f"continue with: python -m runner {' '.join(first)} {local[0]}" in shown
    assert "report:" in shown


@pytest.mark.parametrize("verb", ["validate", "plan", "show"])
def test_a_light_verb_with_m_looks_at_each_job_and_starts_nothing(
    verb: str, fake_stages: Any, local: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["-m", verb, "recipe=viggo_quickstart", "train.lora_rank=4,8", *local]
    assert main(command) == EXIT_DONE
    text = capsys.readouterr().out
    assert "viggo_quickstart train.lora_rank=4" in text
    assert "viggo_quickstart train.lora_rank=8" in text
    assert main([*command, "format=json"]) == EXIT_DONE
    json.loads(capsys.readouterr().out)
    assert fake_stages.runs == []
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("verb", [[], ["validate"]])
def test_a_sweep_with_a_bad_job_is_refused_before_any_starts(
    verb: list[str], fake_stages: Any, local: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["-m", *verb, "recipe=viggo_quickstart", "train.lora_rank=4,0", *local])
    assert code == EXIT_INVALID_RECIPE
    assert "train.lora_rank = 0" in capsys.readouterr().err
    assert fake_stages.runs == []


def test_a_sweep_runs_each_value_and_ingests_once(
    fake_stages: Any, local: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["-m", "recipe=viggo_quickstart", "train.lora_rank=4,8", *local]) == EXIT_DONE
    assert fake_stages.runs.count("train") == 2
    assert fake_stages.runs.count("ingest") == 1


@pytest.mark.parametrize("place", ["a_file/runs", "a_file"])
def test_a_root_that_cannot_be_used_is_reported_in_one_sentence(
    place: str, fake_stages: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a_file").touch()
    for verb in ("run", "clean", "plan", "validate"):
        assert main([verb, "recipe=viggo_quickstart", f"storage.root={tmp_path}/{place}"]) == EXIT_INVALID_RECIPE
        text = printed_error(capsys)
        assert "storage.root" in text
        assert "is a file" in text
        assert "Traceback" not in text
    assert fake_stages.runs == []


def test_an_error_of_the_system_is_one_sentence(
    fake_stages: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").touch()
    words = ["export", "recipe=viggo_quickstart", "target=ray-job", f"export_to={tmp_path}/a_file/x"]
    assert main(words) == EXIT_INVALID_RECIPE
    text = printed_error(capsys)
    assert f"{tmp_path}/a_file/x: not a directory" in text
    assert "not a directory" in text


def test_a_folder_that_is_gone_and_names_that_are_not_utf8_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "recipe=caf\udce9.yaml"]) == EXIT_INVALID_RECIPE
    assert "the command line is not UTF-8: 'recipe=caf\\udce9.yaml'" in printed_error(capsys)
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for words in (["status"], ["validate", "recipe=viggo_quickstart"], ["init", "data=x.csv"]):
        assert main(words) == EXIT_INVALID_RECIPE
        assert "the current folder has been removed Change into one that is there" in printed_error(capsys)
    assert main(["--version"]) == EXIT_DONE


def test_a_user_without_a_home_is_told_what_to_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a container that runs as a number of which its system knows nothing."""

    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    for words in (["list"], ["validate", "recipe=viggo_quickstart"], ["status"], ["init", "data=x.csv"]):
        assert main(words) == EXIT_INVALID_RECIPE
        assert "HOME is not set" in printed_error(capsys)


@pytest.mark.parametrize("redirected", ["| head -1", "2>/dev/full"])
def test_a_pipe_that_is_closed_early_and_a_full_stderr_leave_the_exit_code(redirected: str) -> None:
    """`schema` writes more than a pipe holds; the exit code is the command's."""
    words = "schema" if "head" in redirected else "validat"
    command = f"set -o pipefail; {sys.executable} -m runner {words} {redirected}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (EXIT_DONE if "head" in redirected else EXIT_INVALID_RECIPE, "")


def test_help_of_help_and_of_completion_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "help"]) == EXIT_DONE
    assert "usage: python -m runner [VERB]" in capsys.readouterr().out
    for words in (["help", "completion"], ["completion", "--help"]):
        assert main(words) == EXIT_DONE
        assert "usage: python -m runner completion bash|zsh" in capsys.readouterr().out
