"""What differs between a recipe and another recipe, a file, or an earlier run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.cli.main import main
from runner.errors import EXIT_DONE, EXIT_INVALID_RECIPE


def differing(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, Any]]:
    assert main(["recipe=viggo_quickstart", "action=diff", "format=json", *arguments]) == EXIT_DONE
    document = json.loads(capsys.readouterr().out)
    return {each["key"]: each for each in document["differences"]}


def test_names_each_key_that_differs_with_both_origins(capsys: pytest.CaptureFixture[str]) -> None:
    found = differing(capsys, "other=viggo_quickstart", "train.lora_rank=16")
    assert list(found) == ["train.lora_rank"]
    only = found["train.lora_rank"]
    assert only["this"] == {"value": 16, "origin": "command line: train.lora_rank=16"}
    assert only["other"]["value"] == 8
    assert only["other"]["origin"].startswith("recipes/train/lora.yaml:")


def test_a_key_that_only_one_has_stands_on_one_side(capsys: pytest.CaptureFixture[str]) -> None:
    added = differing(capsys, "other=viggo_quickstart", "train.args.warmup_ratio=0.1")["train.args.warmup_ratio"]
    assert "this" in added
    assert "other" not in added


def test_another_library_is_shown_with_what_each_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    found = differing(capsys, "other=viggo_quickstart", "train.trainer=accelerate")
    assert next(iter(found)) == "train.trainer"
    assert found["train: max_length"] == {"key": "train: max_length", "this": {"value": 256, "origin": "accelerate"}}
    assert found["train: cutoff_len"]["other"] == {"value": 256, "origin": "llamafactory"}
    assert "train: learning_rate" not in found  # the same for both


def test_text_shows_both_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["recipe=viggo_quickstart", "action=diff", "other=viggo_quickstart", "name=mine", "seed=1"]) == EXIT_DONE
    )
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:3] == [
        ["name"],
        ["mine", '"mine"', "#", "command", "line:", "name=mine"],
        ["viggo_quickstart", '"viggo_quickstart"', "#", lines[2][-1]],
    ]
    assert lines[2][-1].startswith("recipes/recipe/viggo_quickstart.yaml:")
    assert ["mine", "1", "#", "command", "line:", "seed=1"] in lines


def test_says_so_when_nothing_differs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe=viggo_quickstart", "action=diff", "other=viggo_quickstart"]) == EXIT_DONE
    assert "viggo_quickstart and viggo_quickstart are the same" in capsys.readouterr().out


def test_compares_with_any_recipe_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "notes" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("# @package _global_\nname: viggo_quickstart\ndefaults: [override /dataset: own]\nseed: 7\n")
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "own.yaml").write_text("source: s3://b\nprompt: {user: '{q}', assistant: '{a}'}\n")
    found = differing(capsys, f"other={file}", "--config-dir", str(tmp_path))
    assert found["seed"]["other"] == {"value": 7, "origin": f"{file}:4"}
    assert found["dataset.source"]["other"]["value"] == "s3://b"


def test_compares_with_a_run_by_folder_id_or_latest(
    fake_stages: Any, local: list[str], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["recipe=viggo_quickstart", *local, "seed=3"]) == EXIT_DONE
    folder = (tmp_path / "runs" / "latest").resolve()
    capfd.readouterr()
    for other in (str(folder), f"{folder}/recipe.json", folder.name, "latest", f"viggo_quickstart/{folder.name}"):
        assert main(["recipe=viggo_quickstart", "action=diff", "format=json", f"other={other}", *local]) == EXIT_DONE
        document = json.loads(capfd.readouterr().out)
        assert document["other"] == f"run {folder.name}"
        (only,) = document["differences"]
        assert (only["key"], only["this"]["value"], only["other"]["value"]) == ("seed", 42, 3)
        assert only["other"]["origin"] == f"{folder}/recipe.json"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "is needed by diff"),
        (["other=viggo_quickstrat"], "Did you mean viggo_quickstart?"),
        (["other=nowhere.yaml"], "is not a file"),
        (["other=latest", "storage.root=nowhere"], "names the newest run, and there is none below"),
    ],
)
def test_a_mistake_in_other_is_explained(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe=viggo_quickstart", "action=diff", *arguments]) == EXIT_INVALID_RECIPE
    assert words in capsys.readouterr().err


def test_problems_of_the_other_recipe_say_whose_they_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("# @package _global_\ntrain: {lora_rank: many}\n")
    code = main(["recipe=viggo_quickstart", "action=diff", f"other={tmp_path}/bad.yaml"])
    assert code == EXIT_INVALID_RECIPE
    assert f"other={tmp_path}/bad.yaml" in capsys.readouterr().err
