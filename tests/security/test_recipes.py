"""Attacks through recipe files and the command line: each is refused by name, nothing is run, no secret is shown."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.cli.main import main
from runner.cluster import environments
from runner.errors import EXIT_INVALID_RECIPE
from runner.recipe.hydra.expansion import too_much
from runner.recipe.load import compose

CASES = yaml.safe_load((Path(__file__).parent / "recipes.yaml").read_text())
SECRET = "canary-Zx8Qw3Rt6Yv1"
HF_SECRET = "hf_" + "canaryZx8Qw3Rt6Yv1Bn4"
MODULE = "canary_module_of_the_security_tests"
HEAD = "# @package _global_\n"


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there once the canary's module has been imported, or a command with its name has run."""
    code = tmp_path / "code"
    code.mkdir()
    seen = tmp_path / MODULE
    (code / f"{MODULE}.py").write_text(
        f"import pathlib\npathlib.Path({str(seen)!r}).touch()\ndef run(*args, **kwargs):\n    return None\n"
    )
    monkeypatch.syspath_prepend(str(code))
    monkeypatch.chdir(tmp_path)
    for name in ("MY_SECRET", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "PROVIDER_KEY"):
        monkeypatch.setenv(name, SECRET)
    for name in ("DATABASE_URL", "GITHUB_PAT", "DB_PASS", "OPENAI_APIKEY", "RECIPE_TOKEN"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("PLAIN", HF_SECRET)
    monkeypatch.setattr(environments, "version", lambda *names: "1")  # a missing one would be named instead
    return seen


def filled(text: str) -> str:
    """The text with the module and the secrets that its words stand for; names of variables stay."""
    nest = "${oc.decode:" * 300 + "1" + "}" * 300
    text = text.replace("1BIG", "1" + "0" * 5000).replace("NESTED", nest)
    text = text.replace("CANARY", MODULE).replace("HFSECRET", HF_SECRET)
    for before, after in (("[SECRET]", f"[{SECRET}]"), (" SECRET}", f" {SECRET}}}"), ("=SECRET", f"={SECRET}")):
        text = text.replace(before, after)
    return text.replace(":SECRET@", f":{SECRET}@")


def refusals(arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    """Problems by key that the command prints, which shows no secret, nor a character that steers a terminal."""
    code = main([*arguments, "action=validate", "format=json", "--config-dir", str(folder)])
    shown = capsys.readouterr()
    assert code == EXIT_INVALID_RECIPE
    for secret in (SECRET, HF_SECRET, "\x1b", "\x07"):
        assert secret not in shown.out + shown.err
    return {problem["key"]: problem for problem in json.loads(shown.out)["problems"]}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["what"])
def test_it_is_refused_by_name_and_nothing_runs(
    case: dict[str, Any], canary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "attack.yaml").write_text(HEAD + filled(case.get("recipe", "")))
    overrides = [filled(text) for text in case.get("overrides", [])]
    found = refusals(["recipe=attack", *overrides], tmp_path, capsys)
    for key, word in case["refused"].items():
        key = key.replace("CANARY", MODULE)
        assert key in found, sorted(found)
        assert word in f"{found[key]['message']} {found[key]['hint']}"
    assert not canary.exists()
    assert MODULE not in sys.modules


def test_the_canary_would_be_seen(canary: Path) -> None:
    __import__(MODULE)
    assert canary.exists()
    del sys.modules[MODULE]


def nested(depth: int) -> str:
    return "stages: " + "{a: " * depth + "1" + "}" * depth + "\n"


def laughs(levels: int, width: int) -> str:
    lines = ["stages:", "  a0: &a0 [x]"]
    lines += [f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        pytest.param(nested(100), "levels deep", id="nested 100 deep"),
        pytest.param(nested(20_000), "levels deep", id="nested 20,000 deep"),
        pytest.param("stages: " + "[" * 5000, "nesting depth", id="never closed"),
        pytest.param(laughs(9, 9), "aliases written out", id="a billion laughs"),
        pytest.param(laughs(40, 2), "aliases written out", id="doubled forty times"),
        pytest.param("stages: {" + ", ".join(f"k{n}: 1" for n in range(200_000)) + "}\n", "bytes", id="2 MB"),
        pytest.param("pipeline: [" + "a," * 120_000 + "]\n", "values", id="120,000 values"),
    ],
)
def test_a_file_that_would_fill_the_memory_is_refused_before_it_is_composed(
    text: str, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe").mkdir()
    file = tmp_path / "recipe" / "attack.yaml"
    file.write_text(HEAD + text)
    problem = refusals(["recipe=attack"], tmp_path, capsys)[""]
    assert word in problem["message"]
    assert problem["origin"].partition(":")[0] == str(file)


@pytest.mark.parametrize("link", ["the folder of recipes", "a folder below", "the file"])
def test_the_limits_hold_for_what_links_lead_to(link: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere, given = tmp_path / "elsewhere", tmp_path / "given"
    for folder in (elsewhere, given):
        folder.mkdir()
    (elsewhere / "attack.yaml").write_text(HEAD + laughs(9, 9))
    if link == "the folder of recipes":
        (given / "recipe").symlink_to(elsewhere)
    elif link == "a folder below":
        (given / "recipe").mkdir()
        (given / "recipe" / "linked").symlink_to(elsewhere)
        (given / "recipe" / "loop").symlink_to(given)
    else:
        (given / "recipe").mkdir()
        (given / "recipe" / "attack.yaml").symlink_to(elsewhere / "attack.yaml")
    name = "linked/attack" if link == "a folder below" else "attack"
    assert "aliases written out" in refusals([f"recipe={name}"], given, capsys)[""]["message"]


def doubled(first: str, next_: str, levels: int = 40) -> str:
    """Values of which each names the one before it twice. next_: with BEFORE for its name."""
    lines = [f"  a0: {first}", *(f"  a{n}: {next_.replace('BEFORE', f'a{n - 1}')}" for n in range(1, levels))]
    return "stages:\n" + "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(doubled("xxxxxxxx", "'${stages.BEFORE}${stages.BEFORE}'"), id="texts"),
        pytest.param(doubled("xxxxxxxx", "'${.BEFORE}${.BEFORE}'"), id="texts by relative names"),
        pytest.param(doubled("[1]", "['${stages.BEFORE}', '${stages.BEFORE}']"), id="lists"),
        pytest.param(doubled("{x: 1}", "{x: '${..BEFORE}', y: '${..BEFORE}'}"), id="mappings"),
        pytest.param(doubled("xxxxxxxx", "'${oc.select:stages.BEFORE}${oc.select:stages.BEFORE}'"), id="by a resolver"),
        pytest.param("seed: '$'\n" + doubled("x", "'${oc.decode:\"${seed}{stages.BEFORE}\"}'", 3), id="put together"),
        pytest.param(doubled("x", "'${stages.BEFORE}'", 5000), id="a chain"),
    ],
)
def test_interpolations_that_would_never_be_resolved_are_refused_before_one_is(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "attack.yaml").write_text(HEAD + text)
    (problem,) = refusals(["recipe=attack"], tmp_path, capsys).values()
    assert "interpolations" in problem["message"]


def test_a_pipe_among_the_recipes_is_refused_and_not_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe").mkdir()
    os.mkfifo(tmp_path / "recipe" / "attack.yaml")
    assert refusals(["recipe=attack"], tmp_path, capsys)


def test_code_of_the_model_is_run_only_where_the_command_line_trusts_it_and_the_plan_says_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = ["recipe=viggo_quickstart", "action=plan", f"storage.root={tmp_path}"]
    assert main(plan) == 0
    assert "trust" not in capsys.readouterr().out
    assert main([*plan, "model.trust_remote_code=true"]) == EXIT_INVALID_RECIPE
    assert main([*plan, "model.trust_remote_code=true", "--trust", "model.trust_remote_code"]) == 0
    assert "model.trust_remote_code is on: code of the model's repository will run" in capsys.readouterr().out


def test_what_is_trusted_is_valid_and_the_plan_shows_it_with_its_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = ["recipe=viggo_quickstart", "action=plan", f"storage.root={tmp_path}"]
    harmful = ["+resources.evaluate.runtime_env={pip: [mine], env_vars: {MY_SETTING: a}}"]
    assert main([*plan, *harmful, "--trust", "resources.evaluate.runtime_env.pip"]) == EXIT_INVALID_RECIPE
    assert "MY_SETTING" in capsys.readouterr().err
    assert main([*plan, *harmful, "--trust", "resources.evaluate.runtime_env"]) == 0
    shown = capsys.readouterr().out
    assert "trusted by --trust: resources.evaluate.runtime_env.pip = ['mine']" in shown
    assert main([*plan, *harmful, "--trust", "resources.evaluate.runtime_env", "format=json"]) == 0
    trusted = json.loads(capsys.readouterr().out)["trusted"]
    assert sorted(trusted) == [
        "resources.evaluate.runtime_env.env_vars.MY_SETTING",
        "resources.evaluate.runtime_env.pip",
    ]


def test_trust_in_a_key_that_needs_none_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe=viggo_quickstart", "action=validate", "--trust", "train.args.cutoff_len"]) == 2
    assert "nothing at train.args.cutoff_len needs trust" in capsys.readouterr().err


def test_a_variable_that_the_command_line_allows_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATA_HOST", "data.example")
    given = ["recipe=viggo_quickstart", "action=show", "dataset.source=https://${oc.env:DATA_HOST}/x"]
    given += ["dataset.prompt.user='{input}'"]
    assert main(given) == EXIT_INVALID_RECIPE
    assert "--allow-env DATA_HOST" in capsys.readouterr().err
    assert main([*given, "--allow-env", "DATA_HOST"]) == 0
    assert "https://data.example/x" in capsys.readouterr().out


@pytest.mark.timeout(60)
def test_many_keys_take_as_long_as_they_are(tmp_path: Path) -> None:
    """And not their square: of 20,000 a minute."""
    values = ", ".join(f"v{number}: train" for number in range(8_000))
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "many.yaml").write_text(f"{HEAD}dataset: {{split: {{column: a, values: {{{values}}}}}}}\n")
    composed = compose(["recipe=many"], tmp_path)
    begin = time.process_time()
    assert len(composed.origins) > 8_000
    assert too_much({"a": {str(number): "b" for number in range(50_000)}}) is None
    assert time.process_time() - begin < 5
