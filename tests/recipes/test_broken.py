"""A corpus of broken recipes: each gives exactly the problems expected, in words that help, and no traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.cli import main
from runner.errors import EXIT_INVALID_RECIPE

CORPUS = [
    pytest.param(case, id=f"{file.stem}: {case['what']}")
    for file in sorted((Path(__file__).parent / "broken").glob("*.yaml"))
    for case in yaml.safe_load(file.read_text())
]
BASE = "# @package _global_\n# A broken recipe.\n"


def recipe_text(case: dict[str, Any]) -> str:
    """The recipe's file: `text` as it is, or `recipe` as YAML."""
    body = case["text"] if "text" in case else yaml.safe_dump(case.get("recipe", {}))
    return f"{BASE}{body if body.strip() != '{}' else ''}"


def test_the_corpus_is_large() -> None:
    assert len(CORPUS) >= 60


@pytest.mark.parametrize("case", CORPUS)
def test_a_broken_recipe_gives_exactly_its_problems(
    case: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-of-the-environment")
    monkeypatch.delenv("NO_SUCH_VARIABLE", raising=False)
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "broken.yaml").write_text(recipe_text(case))
    overrides = case.get("overrides", [])
    chosen = [] if any(text.startswith("recipe=") for text in overrides) else ["recipe=broken"]
    as_json = [] if any(text.startswith("format=") for text in overrides) else ["format=json"]
    code = main([*chosen, "action=validate", *as_json, *overrides, "--config-dir", str(tmp_path)])
    captured = capsys.readouterr()
    assert code == EXIT_INVALID_RECIPE
    assert "Traceback" not in captured.err
    assert "canary" not in captured.out + captured.err
    if not as_json:  # the format itself is broken
        assert all(f"{key} = " in captured.err for key in case["expect"])
        return
    document = json.loads(captured.out)
    found = {problem["key"]: problem for problem in document["problems"]}
    assert set(found) == set(case["expect"])
    assert len(found) == len(document["problems"])
    for key, words in case["expect"].items():
        problem = found[key]
        assert words in f"{problem['message']} {problem['hint']}"
        assert problem["message"]


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
    main(["recipe=broken", "action=validate", "--config-dir", str(tmp_path), "format=json", "model.template=smolm2"])
    origins = {problem["key"]: problem["origin"] for problem in json.loads(capsys.readouterr().out)["problems"]}
    assert origins == {
        "train.args.lora_rnk": str(file),
        "pipeline[1]": str(file),
        "model.template": "command line: model.template=smolm2",
    }
