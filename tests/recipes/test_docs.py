"""Every command in README.md and docs/ names recipes, groups, keys and values that there are."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from runner.cli.command_line import read_command_line
from runner.cli.main import main
from runner.cli.overrides import checked_overrides
from runner.cli.verbs.init import OPTIONS, _options
from runner.cli.verbs.table import VERBS
from runner.cluster import environments
from runner.errors import EXIT_DONE
from runner.pipeline.rules.check import load_recipe
from runner.recipe.load import compose, to_options
from runner.sweep.grid import combinations
from tests.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[list[str]]:
    """The arguments of each `$ python -m runner ...` of a page, without a comment behind it."""
    found = []
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        found += [shlex.split(line, comments=True) for line in re.findall(r"^\$ python -m runner (.*)$", text, re.M)]
    return [list(arguments) for arguments in dict.fromkeys(map(tuple, found))]


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the recipe that the recipe guide shows, next to the one of README.md."""
    (shown,) = re.findall(r"```yaml\n(# @package _global_\n.*?)```", (ROOT / "docs" / "recipes.md").read_text(), re.S)
    folder = tmp_path_factory.mktemp("mine")
    (folder / "recipe").mkdir()
    (folder / "viggo").mkdir()
    for name in ("train.jsonl", "val.jsonl"):
        (folder / "viggo" / name).write_text("{}\n")
    (folder / "recipe" / "support_bot.yaml").write_text(shown)
    (own,) = re.findall(r"```yaml\n(# @package _global_\n.*?)```", (ROOT / "README.md").read_text(), re.S)
    for file in (folder / "tickets.yaml", folder / "chats.yaml", folder / "recipe" / "tickets.yaml"):
        file.write_text(own)
    (folder / "recipe" / "tickets-r4-1e-3.yaml").write_text("# @package _global_\ndefaults: [tickets]\nname: r4\n")
    (folder / "data").mkdir()
    for name in ("train.jsonl", "test.jsonl"):
        (folder / "data" / name).write_text('{"text": "My invoice is wrong", "label": "billing"}\n')
    return folder


def test_the_pages_have_commands() -> None:
    shown = [" ".join(arguments) for arguments in commands()]
    assert len(shown) > 25
    assert "plan recipe=viggo_qwen7b" in shown


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_a_command_of_the_pages_is_valid(arguments: list[str], mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTIFACT_URI", "s3://bucket/prefix")
    monkeypatch.chdir(mine)
    words = [word.replace("/data/viggo", str(mine / "viggo")) for word in arguments]
    line = read_command_line([str(mine) if word == "mine" else word for word in words])
    if line.about_itself:
        return
    verb = VERBS[line.verb]
    if not verb.composes:
        assert set(_options(line)) <= set(OPTIONS)
        return
    overrides = checked_overrides(line, verb)
    assert verb.sweeps or not line.multirun
    for job in combinations(overrides) if line.multirun else [overrides]:
        composed = compose(job, line.config_dir)
        if verb.on == "recipe":
            load_recipe(composed)
        else:
            to_options(composed)


ELSEWHERE = {
    r"run |recipe=|-m |serve ": "whole runs, in tests/e2e, tests/tiny_runs and tests/runner/sweep on smaller recipes",
    r"submit |deploy |undeploy |rollback ": "on a cluster, in tests/runner/cluster and tests/stages/deploy",
    r"preview recipe=viggo_qwen7b": "a tokenizer of the hub",
    r"diff .* other=latest|status": "a run that is there, in tests/e2e and tests/runner/report",
}
"""Commands that are not executed here, and where they are, or what they need."""


def light() -> list[list[str]]:
    """Commands that take seconds and need no network and no run."""
    return [each for each in commands() if not any(re.match(words, " ".join(each)) for words in ELSEWHERE)]


@pytest.fixture
def desk(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the recipes and data that the pages speak of, as the current one."""
    from pyarrow import Table
    from pyarrow.parquet import write_table

    shutil.copytree(mine, tmp_path / "desk" / "mine")
    folder = tmp_path / "desk"
    for file in ("tickets.yaml", "chats.yaml", "data"):
        (folder / "mine" / file).rename(folder / file)
    tickets = [f"My invoice {at},{at},Please look at {at},{'ab'[at % 2]},{'ab'[at % 2]}" for at in range(60)]
    for file in (folder / "tickets.csv", folder / "data" / "tickets.csv"):
        file.write_text("\n".join(["text,subject,body,team,label", *tickets]) + "\n")
    talk = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}]
    write_table(Table.from_pylist([{"messages": talk}] * 30), folder / "chats.parquet")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ARTIFACT_URI", "s3://bucket/prefix")
    return folder


def test_every_command_is_executed_here_or_it_is_written_where() -> None:
    assert len(light()) >= 20
    for words in ELSEWHERE:
        assert any(re.match(words, " ".join(each)) for each in commands()), f"no page has {words}"


@pytest.mark.parametrize("arguments", light(), ids=" ".join)
def test_a_light_command_of_the_pages_does_what_it_is_for(arguments: list[str], desk: Path) -> None:
    init = ["--yes"] if arguments[0] == "init" else []
    assert main([*arguments, *init]) == EXIT_DONE


def test_the_metrics_that_the_guide_names_are_the_libraries_own() -> None:
    named = set(re.findall(r"ray_((?:serve|vllm)_[a-z_]+)", (ROOT / "docs" / "operations.md").read_text()))
    assert len(named) >= 10
    (packages,) = map(Path, environments.packages("engine"))
    known = "".join(path.read_text() for path in (packages / "ray" / "serve" / "_private").glob("*.py"))
    known += (packages / "vllm" / "v1" / "metrics" / "loggers.py").read_text().replace("vllm:", "vllm_")
    assert not [name for name in named if f'"{name}"' not in known]


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        prose = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.S)
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_files_that_the_pages_name_are_there() -> None:
    named = {
        (page.name, path)
        for page in [*PAGES, ROOT / "CONTRIBUTING.md"]
        for path in re.findall(r"`((?:runner|stages|benchmarks)/[\w./-]+)`", page.read_text())
    }
    assert len(named) > 40
    assert [each for each in sorted(named) if not (ROOT / each[1]).exists()] == []


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
