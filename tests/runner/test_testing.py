"""The helpers that tests of recipes call: what they accept, and that they fail where they should."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.testing import (
    assert_golden,
    assert_problems,
    changed,
    composed,
    load_recipe,
    problems_of,
    recipe_names,
)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "recipe").mkdir()
    head = "# @package _global_\ndefaults: [override /dataset: viggo_slice]\n"
    (tmp_path / "recipe" / "good.yaml").write_text(f"{head}name: good\ntrain: {{lora_rank: 4}}\n")
    (tmp_path / "recipe" / "bad.yaml").write_text(f"{head}name: bad\ntrain: {{lora_rnk: 4}}\n")
    return tmp_path


def test_names_every_recipe_of_a_folder(mine: Path) -> None:
    assert recipe_names(mine) == ["bad", "good"]
    with pytest.raises(AssertionError, match="there is no recipe in"):
        recipe_names(mine / "recipe")


def test_loads_a_valid_recipe_and_lists_the_problems_of_another(mine: Path) -> None:
    assert load_recipe("good", "train.num_epochs=2", config_dir=mine).train.num_epochs == 2
    with pytest.raises(AssertionError, match=r"train\.lora_rnk = 4: .*Did you mean train\.lora_rank\?"):
        load_recipe("bad", config_dir=mine)


def test_problems_are_those_of_validate_by_key(mine: Path) -> None:
    assert list(problems_of("bad", "serve.port=-1", config_dir=mine)) == ["train.lora_rnk", "serve.port"]
    assert list(problems_of("nowhere", config_dir=mine)) == ["recipe"]
    assert problems_of("good", config_dir=mine) == {}


def test_expected_problems_pass_and_all_else_fails(mine: Path) -> None:
    assert_problems({"train.lora_rnk": "train.lora_rank"}, "bad", config_dir=mine)
    for expect, words in (
        ({}, r"not expected: train\.lora_rnk"),
        ({"train.lora_rnk": "", "seed": ""}, "not reported: seed"),
        ({"train.lora_rnk": "lora_alpha"}, "without the words 'lora_alpha'"),
    ):
        with pytest.raises(AssertionError, match=words):
            assert_problems(expect, "bad", config_dir=mine)


def test_changes_are_merged_into_a_composed_recipe() -> None:
    base = composed("viggo_quickstart")
    varied = changed(base, {"train.args.warmup_ratio": 0.1, "infer": {"sampling": {"max_tokens": 7}}})
    recipe = load_recipe(varied)
    assert recipe.train.args == {**load_recipe(base).train.args, "warmup_ratio": 0.1}
    assert recipe.infer.sampling == {"temperature": 0.0, "max_tokens": 7}
    assert_problems({"train.lora_rank": "greater than 0"}, changed(base, {"train.lora_rank": 0}))


def test_a_golden_file_is_compared_and_written_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "golden" / "args.json"
    monkeypatch.delenv("UPDATE_GOLDEN", raising=False)
    with pytest.raises(AssertionError, match="is not there"):
        assert_golden({"a": 1}, file)
    monkeypatch.setenv("UPDATE_GOLDEN", "1")
    assert_golden({"a": 1}, file)
    monkeypatch.delenv("UPDATE_GOLDEN")
    assert_golden({"a": 1}, file)
    with pytest.raises(AssertionError, match=r'-  "a": 1'):
        assert_golden({"a": 2}, file)
