"""The shown recipe: every value with its origin, and a file that can be run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.cli.main import main
from runner.errors import EXIT_DONE, EXIT_INVALID_RECIPE
from runner.pipeline.rules.check import load_recipe
from runner.recipe.load import compose
from runner.recipe.show import as_yaml
from tests.paths import ROOT
from tests.runner.recipes import changed


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["action=show", *arguments]) == EXIT_DONE
    return capsys.readouterr().out


def line_of(text: str, key: str) -> str:
    return next(line.strip() for line in text.splitlines() if line.strip().startswith(f"{key}:"))


def test_every_value_has_its_origin(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "recipe=viggo_quickstart", "train.lora_rank=16", "train.args={warmup_ratio: 0.1}")
    assert line_of(text, "lora_rank").endswith("# command line: train.lora_rank=16")
    assert line_of(text, "warmup_ratio").endswith("# command line: train.args={warmup_ratio: 0.1}")
    assert "# recipes/recipe/viggo_quickstart.yaml:" in line_of(text, "cutoff_len")
    assert line_of(text, "on_bad_row").endswith("# default")
    values = text.partition("\nname: ")[2].splitlines()[1:]
    assert all("  # " in line for line in values if not line.endswith(":"))


def test_an_origin_is_the_line_of_the_value(capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(shown(capsys, "recipe=viggo_quickstart", "format=json"))
    root = ROOT
    checked = 0
    for key, origin in document["origins"].items():
        if origin.startswith("recipes/"):
            file, _, line = origin.partition(":")
            assert key.rpartition(".")[2] in (root / file).read_text().splitlines()[int(line) - 1]
            checked += 1
    assert checked > 30


def test_json_holds_the_recipe_and_an_origin_for_each_leaf(capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(shown(capsys, "recipe=viggo_quickstart", "format=json"))
    assert document["recipe"]["train"]["lora_rank"] == 8
    assert document["origins"]["train.lora_rank"].startswith("recipes/train/lora.yaml:")


def test_an_engine_argument_of_the_endpoint_has_the_origin_of_the_batchs(capsys: pytest.CaptureFixture[str]) -> None:
    origins = json.loads(shown(capsys, "recipe=viggo_quickstart", "format=json"))["origins"]
    assert origins["serve.engine_kwargs.max_model_len"].startswith("recipes/recipe/viggo_quickstart.yaml:")


def test_a_shown_recipe_runs_without_the_groups_it_was_made_from(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Nothing of the default groups may appear again: neither their keys nor what the endpoint has dropped."""
    overrides = ["recipe=viggo_qwen7b", "storage.artifacts=s3://b/p", "serve.engine_kwargs.max_num_batched_tokens=null"]
    before, _ = load_recipe(compose(overrides))
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "shown.yaml").write_text(shown(capsys, *overrides))
    after, _ = load_recipe(compose(["recipe=shown", overrides[1]], tmp_path))
    assert after == before
    assert "per_device_train_batch_size" not in after.train.args
    assert "max_num_batched_tokens" not in after.serve.engine_kwargs


@pytest.mark.parametrize("text", ["1e5", "0b1", "no", "a: b", "x # y", "${seed}", "\\${seed}", "\\\\${a}", "é\n\t"])
def test_text_stays_the_same_text(text: str, tmp_path: Path) -> None:
    composed = changed({"train.args.run_name": text})
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "shown.yaml").write_text(as_yaml(load_recipe(composed)[0], composed))
    again = compose(["recipe=shown", "storage.artifacts=s3://bucket/prefix"], tmp_path)
    assert load_recipe(again)[0].train.args["run_name"] == text


def test_a_login_in_an_address_is_masked(capsys: pytest.CaptureFixture[str]) -> None:
    given = "storage.endpoint_url=https://me:hunter2@host:9000"
    assert main(["action=show", "recipe=viggo_quickstart", given]) == EXIT_INVALID_RECIPE
    printed = capsys.readouterr()
    assert "hunter2" not in printed.out + printed.err
    assert "https://***@host:9000" in printed.err
