"""Completion offers verbs, recipes, groups, keys and values, as bash and zsh ask for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runner.cli.completion import complete
from runner.cli.main import main
from tests.paths import ROOT


def words(line: str) -> list[str]:
    return complete("whole", line).split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("recipe-runner val", ["validate"]),
        ("recipe-runner validate recipe=viggo_q", ["recipe=viggo_quickstart", "recipe=viggo_qwen7b"]),
        ("recipe-runner validate clus", ["cluster=", "cluster."]),
        ("recipe-runner validate train.args.cutoff", ["train.args.cutoff_len="]),
        ("recipe-runner run train.stage=s", ["train.stage=sft"]),
        ("recipe-runner run serve.keep_alive=t", ["serve.keep_alive=true"]),
        ("recipe-runner export tar", ["target="]),
        ("recipe-runner export target=k", ["target=kuberay"]),
        ("recipe-runner run --conf", ["--config-dir"]),
        ("recipe-runner run resources.train.num", ["resources.train.num_workers="]),
    ],
)
def test_the_last_word_is_completed(line: str, expected: list[str]) -> None:
    assert words(line) == expected


def test_the_users_own_recipes_are_offered(tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "support_bot.yaml").touch()
    assert words(f"recipe-runner --config-dir {tmp_path} run recipe=sup") == ["recipe=support_bot"]


def test_bash_is_given_what_stands_behind_its_last_equals_sign() -> None:
    assert complete("words", "recipe-runner run recipe=viggo_qui") == "viggo_quickstart\n"


def test_bash_completes_with_the_script(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    program = tmp_path / "recipe-runner"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m runner "$@"\n')
    program.chmod(0o755)
    ask = 'COMP_LINE="recipe-runner val"; COMP_POINT=17; COMP_WORDS=(recipe-runner val); COMP_CWORD=1; _recipe_runner'
    code = f'eval "$({program} completion bash)"\nPATH={tmp_path}:$PATH\n{ask}; echo "${{COMPREPLY[*]}}"'
    done = subprocess.run([bash, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "validate", done.stderr


def test_nothing_heavy_is_imported_for_it() -> None:
    code = (
        "import sys; from runner.cli.main import main; main(['completion', 'words', 'recipe-runner run train.']);"
        "assert not {'hydra', 'omegaconf', 'pydantic', 'rich', 'ray'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "train.lora_rank=" in done.stdout or "lora_rank=" in done.stdout


def test_both_scripts_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for shell, word in (("bash", "complete -o default"), ("zsh", "compdef")):
        assert main(["completion", shell]) == 0
        assert word in capsys.readouterr().out
