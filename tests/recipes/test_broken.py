"""A corpus of broken recipes: each gives exactly the problems expected, in words that help, and no traceback."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.cli.main import main
from runner.errors import EXIT_INVALID_RECIPE
from runner.recipe.load import Composed, compose
from runner.testing import assert_problems, changed

CORPUS = [
    pytest.param(case, id=f"{file.stem}: {case['what']}")
    for file in sorted((Path(__file__).parent / "broken").glob("*.yaml"))
    for case in yaml.safe_load(file.read_text())
]
BASE = "# @package _global_\n# A broken recipe.\n"
DATA = "dataset=viggo_slice"


def needs_hydra(case: dict[str, Any]) -> bool:
    """Whether Hydra has a part in the case: files to parse, overrides, interpolations."""
    return "recipe" not in case or "overrides" in case or "${" in str(case["recipe"])


def reported_by_command_line(
    case: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> list[dict[str, Any]]:
    """The problems that `action=validate format=json` prints for the case's recipe file and overrides."""
    (folder / "recipe").mkdir()
    body = case["text"] if "text" in case else yaml.safe_dump(case["recipe"]) if "recipe" in case else ""
    (folder / "recipe" / "broken.yaml").write_text(f"{BASE}{body}")
    overrides = case.get("overrides", [])
    chosen = [] if any(text.startswith("recipe=") for text in overrides) else ["recipe=broken", DATA]
    code = main([*chosen, "action=validate", "format=json", "--config-dir", str(folder), *overrides])
    captured = capsys.readouterr()
    assert code == EXIT_INVALID_RECIPE
    assert "canary" not in captured.out + captured.err
    assert captured.err == ""
    problems: list[dict[str, Any]] = json.loads(captured.out)["problems"]
    return problems


@cache
def defaults() -> Composed:
    return compose(["name=broken", DATA])


def test_the_corpus_is_large() -> None:
    assert len(CORPUS) >= 60
    assert sum(needs_hydra(param.values[0]) for param in CORPUS) >= 20


@pytest.mark.parametrize("case", CORPUS)
def test_a_broken_recipe_gives_exactly_its_problems(
    case: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-of-the-environment")
    monkeypatch.delenv("NO_SUCH_VARIABLE", raising=False)
    if not needs_hydra(case):  # without composing it again: fifteen times faster, for most of the corpus
        assert_problems(case["expect"], changed(defaults(), case["recipe"]))
        return
    reported = reported_by_command_line(case, tmp_path, capsys)
    found = {problem["key"]: problem for problem in reported}
    assert set(found) == set(case["expect"])
    assert len(found) == len(reported)
    for key, words in case["expect"].items():
        assert words in f"{found[key]['message']} {found[key]['hint']}"
        assert found[key]["message"]


@pytest.mark.parametrize(
    "override",
    [
        "train.args.hub_token=hunter2",
        "train.args={hub_token: hunter2, lora_rnk: 4}",
        "dataset.source=ftp://me:hunter2@host/x",
    ],
)
def test_a_secret_is_not_repeated(override: str, capsys: pytest.CaptureFixture[str]) -> None:
    for output in ("text", "json"):
        main(["recipe=viggo_quickstart", "action=validate", f"format={output}", override])
        captured = capsys.readouterr()
        assert "hunter2" not in captured.out + captured.err


def test_each_problem_says_where_its_value_came_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe").mkdir()
    file = tmp_path / "recipe" / "broken.yaml"
    file.write_text(f"{BASE}train: {{args: {{lora_rnk: 4}}}}\npipeline: [ingest, trian]\n")
    changes = [DATA, "model.template=smolm2"]
    main(["recipe=broken", "action=validate", "--config-dir", str(tmp_path), "format=json", *changes])
    origins = {problem["key"]: problem["origin"] for problem in json.loads(capsys.readouterr().out)["problems"]}
    assert origins == {
        "train.args.lora_rnk": f"{file}:3",
        "pipeline[1]": f"{file}:4",
        "model.template": "command line: model.template=smolm2",
    }
