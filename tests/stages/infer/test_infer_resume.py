"""Batch inference that is killed resumes where it was: every row once, in order, and the bytes of a whole run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.errors import RunnerError
from runner.pipeline.context import RunContext
from runner.pipeline.stage import StageResult
from runner.recipe.load import compose, to_recipe
from runner.storage.artifact import Artifact, scan_folder
from stages.data.example import Example, Message, write_examples
from stages.infer import stage as infer
from stages.infer.journal import JOURNAL
from stages.infer.requests import Engine, answer, read_chunk
from stages.infer.stage import FINISHED, Infer
from stages.sections.recipe import Recipe

NUM_ROWS = 10_000
ENGINE = Engine("/model", {"tuned": "/adapter"})
Asked = list[tuple[int, str]]


class Killed(BaseException):
    """The process ends here."""


class FakeEngine:
    """Answers with the row's number; a bad row gets an error. `die_after` counts rows until the process is killed."""

    def __init__(self) -> None:
        self.asked: Asked = []
        self.die_after: int | None = None
        self.is_bad: Callable[[int], bool] = lambda index: index % 100 == 37

    def predict(self, recipe: Recipe, path: Path, chunks: list[dict[str, Any]], engine: Engine) -> Iterator[Any]:
        count = 0
        for chunk in chunks:
            rows = list(read_chunk(chunk, path=path, variants=list(engine.models)))
            count += len(rows)
            if self.die_after is not None and count > self.die_after:
                raise Killed
            self.asked += [(row["index"], row["variant"]) for row in rows]
            yield [answer({**row, **self.output(row["index"])}) for row in rows]

    def output(self, index: int) -> dict[str, Any]:
        if self.is_bad(index):
            return {"__inference_error__": "ValueError: too long", "time_taken_llm": -1}
        text = {"generated_text": f"f({index})", "num_input_tokens": 3, "num_generated_tokens": 4}
        return {**text, "__inference_error__": "", "time_taken_llm": 0.1}


@pytest.fixture
def quickstart() -> Recipe:
    return to_recipe(compose(["recipe=viggo_quickstart", "infer.engine=own"]))[0]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine()
    monkeypatch.setattr(infer, "predict", fake.predict)
    monkeypatch.setattr(infer, "plan_engines", lambda *args: [ENGINE])
    monkeypatch.setattr(infer, "check_fits", lambda *args: None)
    return fake


@pytest.fixture
def test_set(tmp_path: Path) -> Artifact:
    return write_test_set(tmp_path / "test_set", NUM_ROWS)


def example(index: int) -> Example:
    """A row whose answer has its number."""
    asked: Message = {"role": "user", "content": "What?"}
    columns = {"input": "What?", "output": f"f({index})"}
    return Example(f"test-{index:06d}", [asked, {"role": "assistant", "content": f"f({index})"}], columns=columns)


def write_test_set(folder: Path, num_rows: int) -> Artifact:
    folder.mkdir()
    write_examples(folder / "test.jsonl", map(example, range(num_rows)))
    return scan_folder("test_set", folder)


def run(recipe: Recipe, test_set: Artifact, folder: Path, lines: list[str] | None = None) -> StageResult:
    folder.mkdir(exist_ok=True)
    session = SimpleNamespace(
        progress=lambda stage: SimpleNamespace(update=lambda *args, **figures: None),
        start=lambda: None,
        import_ahead=lambda environment, imports, given: given,
        forget_imports=lambda environment: None,
    )
    inputs = {"test_set": test_set, "model": Artifact(name="model", uri="/model", sha256="m")}
    say = (lines if lines is not None else []).append
    return Infer().run(RunContext(recipe, "infer", "r", folder.parent, folder, "f", inputs, session, say=say))  # type: ignore[arg-type]


def rows_of(result: StageResult) -> list[dict[str, Any]]:
    parts = sorted(result.artifacts[0].path.iterdir())
    return [json.loads(line) for part in parts for line in part.read_text().splitlines()]


def test_ten_thousand_rows_killed_twice_are_predicted_once_each(
    quickstart: Recipe, engine: FakeEngine, test_set: Artifact, tmp_path: Path
) -> None:
    whole = run(quickstart, test_set, tmp_path / "whole")
    engine.asked.clear()
    lines: list[str] = []
    for die_after in (3_200, 4_000):
        engine.die_after = die_after
        with pytest.raises(Killed):
            run(quickstart, test_set, tmp_path / "infer", lines)
        with (tmp_path / "infer" / JOURNAL).open("ab") as journal:
            journal.write(b"0123456789abcdef 9999 tun")  # a record that the kill tore
    engine.die_after = None
    result = run(quickstart, test_set, tmp_path / "infer", lines)
    assert sorted(engine.asked) == [(index, "tuned") for index in range(NUM_ROWS)]
    rows = rows_of(result)
    assert [row["id"] for row in rows] == [f"test-{index:06d}" for index in range(NUM_ROWS)]
    assert sum(row["error"] is not None for row in rows) == result.metrics["num_errors"] == 100
    assert result.artifacts[0].sha256 == whole.artifacts[0].sha256
    assert lines == [
        "  infer: continued: 3,200 of 10,000 predictions were done, 1 damaged and predicted again",
        "  infer: continued: 7,200 of 10,000 predictions were done, 1 damaged and predicted again",
    ]
    assert "7200 of 10000 predictions continued, 100 refused by the engine" in result.note
    assert result.metrics["num_continued"] == 7200


def test_a_complete_attempt_without_a_record_is_reused(quickstart: Recipe, engine: FakeEngine, tmp_path: Path) -> None:
    test_set = write_test_set(tmp_path / "few", 200)
    first = run(quickstart, test_set, tmp_path / "infer")
    assert not (tmp_path / "infer" / JOURNAL).exists()
    engine.asked.clear()
    assert run(quickstart, test_set, tmp_path / "infer") == first
    assert not engine.asked
    part = next((tmp_path / "infer" / "predictions").iterdir())
    part.write_text(part.read_text().replace("f(3)", "f(4)"))
    assert run(quickstart, test_set, tmp_path / "infer").artifacts == first.artifacts
    assert len(engine.asked) == 200


def test_a_kill_after_the_last_row_costs_no_engine(quickstart: Recipe, engine: FakeEngine, tmp_path: Path) -> None:
    test_set = write_test_set(tmp_path / "few", 200)
    first = run(quickstart, test_set, tmp_path / "whole")

    def killed(*args: Any) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(infer, "write_parts", killed)
        with pytest.raises(Killed):
            run(quickstart, test_set, tmp_path / "infer")
    engine.asked.clear()
    result = run(quickstart, test_set, tmp_path / "infer")
    assert not engine.asked
    assert result.artifacts[0].sha256 == first.artifacts[0].sha256
    assert result.note == "200 rows by tuned, 200 of 200 predictions continued, 2 refused by the engine"


def test_a_test_set_that_the_engine_refuses_as_a_whole_fails_and_is_asked_again(
    quickstart: Recipe, engine: FakeEngine, tmp_path: Path
) -> None:
    test_set = write_test_set(tmp_path / "few", 3)
    engine.is_bad = lambda index: True
    for _ in range(2):
        engine.asked.clear()
        with pytest.raises(RunnerError, match="refused every row: ValueError: too long"):
            run(quickstart, test_set, tmp_path / "infer")
        assert len(engine.asked) == 3
    assert not (tmp_path / "infer" / FINISHED).exists()


def test_a_lost_row_fails_the_stage_and_is_asked_for_again(
    quickstart: Recipe, engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test_set = write_test_set(tmp_path / "few", 200)
    monkeypatch.setattr(infer, "predict", lambda recipe, path, chunks, e: engine.predict(recipe, path, chunks[1:], e))
    with pytest.raises(RunnerError, match=r"of 200 test rows without a prediction \(tuned\), row 0 for one"):
        run(quickstart, test_set, tmp_path / "infer")
    monkeypatch.setattr(infer, "predict", engine.predict)
    result = run(quickstart, test_set, tmp_path / "infer")
    assert sorted(engine.asked) == [(index, "tuned") for index in range(200)]
    assert len(rows_of(result)) == 200


def test_figures_leave_out_the_engines_start_and_what_was_done_before(
    quickstart: Recipe, engine: FakeEngine, tmp_path: Path
) -> None:
    metrics = run(quickstart, write_test_set(tmp_path / "few", 200), tmp_path / "infer").metrics
    assert {name: metrics[name] for name in ("num_predictions", "num_continued", "num_errors", "output_tokens")} == {
        "num_predictions": 200,
        "num_continued": 0,
        "num_errors": 2,
        "output_tokens": 198 * 4,
    }
    assert metrics["rows_per_s"] > 0
    assert set(metrics) >= {"num_rows", "variants", "output_tokens_per_s", "engine_start_s", "wall_s"}
