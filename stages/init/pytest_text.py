"""The pytest file of a proposed recipe."""

from __future__ import annotations

import json
import re

from stages.init.proposal import Proposal

_HEAD = '''\
"""Tests of {file}; run them with: python -m pytest {test}"""

from pathlib import Path

import pytest

from runner.testing import assert_problems, load_recipe

RECIPE = Path(__file__).resolve().with_name({name})
DATA = {data}  # dataset.source is relative to this folder


@pytest.fixture(autouse=True)
def _beside_the_data(monkeypatch):
    monkeypatch.chdir(DATA)


def test_the_recipe_is_valid():
    recipe = load_recipe(str(RECIPE))
    assert recipe.train.stage == {stage}


def test_a_rank_of_zero_is_refused():
    assert_problems({{"train.lora_rank": ""}}, str(RECIPE), "train.lora_rank=0")
'''
_COLUMN = """

def test_a_prompt_with_a_column_that_the_rows_lack_is_refused():
    assert_problems({{{key}: "lack"}}, str(RECIPE), {override})
"""


def pytest_name(name: str) -> str:
    """The file's name, which is a module's: `test_tickets.py`."""
    return f"test_{re.sub(r'[^A-Za-z0-9_]', '_', name)}.py"


def pytest_text(made: Proposal, name: str, levels: int | None) -> str:
    """The file. name: of the recipe. levels: how many folders above it `dataset.source` is relative to; None: none."""
    data = "RECIPE.parent" if not levels else f"RECIPE.parents[{levels}]"
    text = _HEAD.format(
        file=f"{name}.yaml", test=pytest_name(name), name=json.dumps(f"{name}.yaml", ensure_ascii=False), data=data,
        stage=json.dumps(made.shape.stage),
    )  # fmt: skip
    if "://" in made.found.source or made.shape.stage == "pt":
        return text
    key = "conversations" if "conversations" in made.shape.prompt else "user"
    override = f"dataset.prompt.{key}=no_such_column" if key == "conversations" else "dataset.prompt.user='{no_such}'"
    return text + _COLUMN.format(key=json.dumps(f"dataset.prompt.{key}"), override=json.dumps(override))
