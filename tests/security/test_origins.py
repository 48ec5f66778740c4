"""A recipe file chooses no verb, sends nothing to another host, and clean removes what this product made alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from runner.cli.main import main
from runner.cli.settings import settings_for, settings_path
from runner.errors import EXIT_DONE, EXIT_INVALID_RECIPE
from runner.recipe.load import compose, to_recipe

HEAD = "# @package _global_\ndefaults: [override /dataset: viggo_slice]\n"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine" / "recipe").mkdir(parents=True)
    return tmp_path / "mine"


def settings(text: str) -> None:
    file = Path(os.environ["XDG_CONFIG_HOME"]) / "recipe-runner" / "settings.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text)


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("action: clean", "action", "chooses a verb"),
        ("runs: [latest]", "runs", "option of the command line"),
        ("job: x", "job", "option of the command line"),
        ("force: [train]", "force", "option of the command line"),
        ("export_to: /", "export_to", "option of the command line"),
        ("submit: {env: [HF_TOKEN]}", "submit.env", "settings.yaml"),
        ('cluster: {address: "http://10.0.0.1:8265"}', "cluster.address", "settings.yaml"),
        ('cluster: {address: "ray://evil:10001"}', "cluster.address", "settings.yaml"),
        ('cluster: {address: "http://127.0.0.1@evil:8265"}', "cluster.address", "settings.yaml"),
        ("deploy: {url: 'https://evil'}", "deploy.url", "settings.yaml"),
    ],
)
def test_a_recipe_file_may_not_say_it_and_is_told_who_may(
    text: str, key: str, words: str, mine: Path, fake_stages: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (mine / "recipe" / "bot.yaml").write_text(f"{HEAD}{text}\n")
    assert main(["recipe=bot", "--config-dir", str(mine)]) == EXIT_INVALID_RECIPE
    printed = " ".join(capsys.readouterr().err.split())
    assert key in printed
    assert words in printed
    assert fake_stages.runs == []


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:6379", "http://localhost:8265", "http://[::1]:8265"])
def test_an_address_of_this_machine_is_fine_in_a_recipe(address: str, mine: Path) -> None:
    (mine / "recipe" / "bot.yaml").write_text(f'{HEAD}cluster: {{address: "{address}"}}\n')
    assert to_recipe(compose(["recipe=bot"], mine))[0].cluster.address == address


def test_the_users_settings_and_command_line_say_where_to(mine: Path) -> None:
    (mine / "recipe" / "bot.yaml").write_text(HEAD)
    settings('cluster.address: "http://10.0.0.1:8265"\nsubmit: {env: [HF_TOKEN]}\n')
    given = settings_for("submit")
    recipe = to_recipe(compose(["recipe=bot"], mine, given))[0]
    assert (recipe.cluster.address, recipe.submit.env) == ("http://10.0.0.1:8265", ["HF_TOKEN"])
    other = to_recipe(compose(["recipe=bot", "cluster.address=http://10.0.0.2:8265"], mine, given))[0]
    assert other.cluster.address == "http://10.0.0.2:8265"
    assert settings_for("run") == []


def test_a_setting_that_there_is_not_is_refused_with_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    settings("cluster.adress: http://10.0.0.1:8265\n")
    assert main(["logs", "job=x"]) == EXIT_INVALID_RECIPE
    printed = " ".join(capsys.readouterr().err.split())
    assert "Did you mean cluster.address?" in printed
    assert "settings.yaml" in printed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("allow: [s3://mine]\nallow: [s3://other]\n", "allow is given twice"),
        ("submit: {env: [A], env: [B]}\n", "env is given twice"),
        ("submit.env: [A]\nsubmit: {env: [B]}\n", "submit.env is given twice"),
    ],
)
def test_a_setting_that_is_given_twice_is_refused(text: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings(text)
    assert main(["validate", "recipe=viggo_quickstart"]) == EXIT_INVALID_RECIPE
    assert words in " ".join(capsys.readouterr().err.split())


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a link to itself", "a device"])
def test_settings_that_are_not_a_file_are_refused_and_not_passed_over(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = settings_path()
    path.parent.mkdir(parents=True)
    make = {
        "a folder": path.mkdir,
        "a pipe": lambda: os.mkfifo(path),
        "a link to itself": lambda: path.symlink_to(path),
        "a device": lambda: path.symlink_to("/dev/zero"),
    }
    make[kind]()
    assert main(["validate", "recipe=viggo_quickstart"]) == EXIT_INVALID_RECIPE
    assert "is not a file of settings" in capsys.readouterr().err


def test_clean_removes_the_recipes_own_runs_and_names_what_it_leaves(
    fake_stages: Any, local: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "runs" / "viggo_quickstart"
    assert main(["recipe=viggo_quickstart", *local]) == EXIT_DONE
    (own,) = [path for path in home.iterdir() if path.name[0] != "."]
    foreign = home / "precious"
    foreign.mkdir()
    (foreign / "manifest.json").write_text('{"run_id": "precious", "recipe": "viggo_quickstart"}')
    copied = home / "20200101-000000-abcdef"
    copied.mkdir()
    (copied / "manifest.json").write_bytes((own / "manifest.json").read_bytes())
    (home / "linked").symlink_to(own)
    odd = home / "20200101-000000-fedcba"
    odd.mkdir()
    os.mkfifo(odd / "manifest.json")
    capfd.readouterr()
    assert main(["clean", "recipe=viggo_quickstart", *local]) == EXIT_DONE
    printed = capfd.readouterr().out
    assert printed.index(f"removing {own}") < printed.index("removed 1 run of viggo_quickstart")
    assert (foreign.is_dir(), copied.is_dir(), own.exists()) == (True, True, False)
    for left in (foreign, copied, odd, home / "linked"):
        assert f"leaving {left}" in printed


def test_clean_without_a_recipe_removes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean"]) == EXIT_INVALID_RECIPE
    assert "is needed by clean" in capsys.readouterr().err
