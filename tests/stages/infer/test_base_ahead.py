"""Predictions of the base model that are made while training runs: infer uses what is ready, and waits for nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.pipeline.context import RunContext
from runner.storage.artifact import Artifact
from stages.infer import base_ahead
from stages.infer.stage import Infer
from stages.sections.recipe import Recipe
from tests.stages.infer.test_base_predictions import NUM_ROWS, engine, recipe
from tests.stages.infer.test_infer_resume import FakeEngine, quickstart, run, write_test_set

__all__ = ["engine", "quickstart", "recipe"]  # fixtures


@pytest.fixture
def test_set(tmp_path: Path) -> Artifact:
    return write_test_set(tmp_path / "test_set", NUM_ROWS)


@pytest.fixture
def ahead(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The engine, which answers also ahead, if not while it starts."""

    def ask(recipe: Recipe, path: Path, pieces: list[Any], engine_: Any, progress: Any) -> Iterator[Any]:
        progress.update(0, None, "s")
        yield from engine.predict(recipe, path, pieces, engine_)

    monkeypatch.setattr(base_ahead, "ask", ask)
    return engine


def start(recipe: Recipe, test_set: Artifact, lines: list[str]) -> RunContext:
    inputs = {"test_set": test_set, "model": Artifact(name="model", uri="/model", sha256="m")}
    session: Any = SimpleNamespace()
    ctx = RunContext(recipe, "infer", "r", Path(), Path(), "", inputs, session, say=lines.append)
    base_ahead.start(ctx, Infer())
    return ctx


def finish(ctx: RunContext) -> None:
    """Wait for the thread and undo what is deferred, as the run's end does."""
    ((what, undo),) = ctx.deferred
    assert what == "the base model's predictions"
    for thread in threading.enumerate():
        if thread.name == "base-predictions":
            thread.join(10)
    undo()


def test_the_infer_stage_has_only_the_adapter_to_ask(
    recipe: Recipe, ahead: FakeEngine, test_set: Artifact, tmp_path: Path
) -> None:
    lines: list[str] = []
    finish(start(recipe, test_set, lines))
    assert ahead.asked == [(index, "base") for index in range(NUM_ROWS)]
    ahead.asked.clear()
    run(recipe, test_set, tmp_path / "infer", lines)
    assert {variant for _, variant in ahead.asked} == {"tuned"}
    assert lines == [
        f"  infer: the base model's {NUM_ROWS} predictions are made",
        f"  infer: {NUM_ROWS} predictions of the base model are reused",
    ]
    assert [path.suffix for path in (tmp_path / "runs" / "base_predictions").iterdir()] == [".jsonl"]


def test_what_has_been_made_is_not_made_ahead(recipe: Recipe, ahead: FakeEngine, test_set: Artifact) -> None:
    lines: list[str] = []
    finish(start(recipe, test_set, lines))
    ahead.asked.clear()
    finish(start(recipe, test_set, lines))
    assert (ahead.asked, len(lines)) == ([], 1)


def test_a_run_that_ends_stops_it_and_the_next_resumes_it(
    recipe: Recipe, ahead: FakeEngine, test_set: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_ahead, "rows_per_chunk", lambda recipe: 10)
    lines: list[str] = []
    asked, predict = threading.Event(), ahead.predict

    def slow(*args: Any) -> Iterator[Any]:
        for count, batch in enumerate(predict(*args)):
            if count == 2:
                asked.set()
                threading.Event().wait(0.2)  # the run ends meanwhile
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(ahead, "predict", slow)
        ctx = start(recipe, test_set, lines)
        assert asked.wait(10)
        ctx.deferred[0][1]()
    assert (len(ahead.asked), lines) == (30, [])
    finish(start(recipe, test_set, lines))
    assert ahead.asked == [(index, "base") for index in range(NUM_ROWS)]


def test_an_engine_that_fails_is_reported_and_the_infer_stage_predicts_every_row(
    recipe: Recipe, ahead: FakeEngine, test_set: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any) -> Iterator[Any]:
        raise RuntimeError("no engine")
        yield

    lines: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(base_ahead, "ask", fails)
        finish(start(recipe, test_set, lines))
    assert lines == ["  infer: the base model has not predicted ahead: RuntimeError: no engine"]
    run(recipe, test_set, tmp_path / "infer", lines)
    assert len(ahead.asked) == 2 * NUM_ROWS


def test_nothing_is_asked_of_a_base_model_that_is_not_compared(
    recipe: Recipe, ahead: FakeEngine, test_set: Artifact
) -> None:
    alone = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"compare_base": False})})
    assert start(alone, test_set, []).deferred == []
