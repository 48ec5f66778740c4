"""Predictions of the base model are made once for a test set, whatever adapters are compared with it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from runner.storage.artifact import Artifact
from stages.infer import stage as infer
from stages.infer.base import base_file, made_once
from stages.infer.requests import Engine
from stages.infer.stage import Infer
from stages.sections.recipe import Recipe
from tests.stages.infer.test_infer_resume import FakeEngine, rows_of, run, write_test_set

NUM_ROWS = 50
BOTH = Engine("/model", {"tuned": "/adapter", "base": "/model"})


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine()
    fake.is_bad = lambda index: False
    monkeypatch.setattr(infer, "predict", fake.predict)
    monkeypatch.setattr(infer, "plan_engines", lambda *args: [BOTH])
    monkeypatch.setattr(infer, "check_fits", lambda *args: None)
    return fake


@pytest.fixture
def recipe(quickstart: Recipe, tmp_path: Path) -> Recipe:
    storage = quickstart.storage.model_copy(update={"root": str(tmp_path / "runs")})
    own = quickstart.infer.model_copy(update={"engine": "own"})
    return quickstart.model_copy(update={"storage": storage, "infer": own})


def test_the_next_adapter_takes_the_base_models_predictions_over(
    recipe: Recipe, engine: FakeEngine, tmp_path: Path
) -> None:
    test_set = write_test_set(tmp_path / "test_set", NUM_ROWS)
    first = run(recipe, test_set, tmp_path / "first")
    assert len(engine.asked) == 2 * NUM_ROWS
    engine.asked.clear()
    lines: list[str] = []
    second = run(recipe, test_set, tmp_path / "second", lines)
    assert sorted(engine.asked) == [(index, "tuned") for index in range(NUM_ROWS)]
    assert rows_of(second) == rows_of(first)
    assert lines == [f"  infer: {NUM_ROWS} predictions of the base model are reused"]


@pytest.mark.parametrize("damage", [lambda data: data[:-40], lambda data: data.replace(b"f(7)", b"f(8)")])
def test_a_damaged_file_is_made_again(recipe: Recipe, engine: FakeEngine, tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    test_set = write_test_set(tmp_path / "test_set", NUM_ROWS)
    run(recipe, test_set, tmp_path / "first")
    (path,) = (tmp_path / "runs" / "base_predictions").iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    engine.asked.clear()
    run(recipe, test_set, tmp_path / "second")
    assert len(engine.asked) == 2 * NUM_ROWS
    assert path.read_bytes() == whole


def test_rows_that_the_engine_refused_are_asked_again(recipe: Recipe, engine: FakeEngine, tmp_path: Path) -> None:
    engine.is_bad = lambda index: index == 3
    test_set = write_test_set(tmp_path / "test_set", NUM_ROWS)
    run(recipe, test_set, tmp_path / "first")
    assert not (tmp_path / "runs" / "base_predictions").exists()


def test_what_changes_an_answer_changes_the_file(recipe: Recipe, tmp_path: Path) -> None:
    def file(recipe: Recipe, model: str = "m") -> Path:
        inputs = {"model": Artifact(name="model", uri="/m", sha256=model),
                  "test_set": Artifact(name="test_set", uri="/t", sha256="t")}  # fmt: skip
        return base_file(recipe, Infer(), inputs)

    def with_infer(**changes: object) -> Recipe:
        return recipe.model_copy(update={"infer": recipe.infer.model_copy(update=changes)})

    same = file(recipe)
    assert same == file(recipe.model_copy(update={"train": recipe.train.model_copy(update={"lora_rank": 32})}))
    assert same == file(with_infer(engine_kwargs={**recipe.infer.engine_kwargs, "max_lora_rank": 64}))
    assert same != file(with_infer(sampling={"max_tokens": 3}))
    assert same != file(recipe, model="other")


def test_of_two_runs_one_predicts_and_the_other_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "base_predictions" / "d.jsonl"
    lines: list[str] = []

    def other_run_ends(seconds: float) -> None:
        path.parent.mkdir()
        path.write_text("made")

    monkeypatch.setattr("stages.infer.base.time", SimpleNamespace(sleep=other_run_ends))
    with made_once(path, lines.append):
        with made_once(path, lines.append):
            assert path.read_text() == "made"
        assert len(lines) == 1
        assert lines[0].startswith("the base model's predictions are being made: process ")
    with made_once(path, lines.append):
        assert not list((tmp_path / ".locks").iterdir())
