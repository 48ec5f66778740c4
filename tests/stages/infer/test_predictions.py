"""The predictions' files: what a line holds, that none is lost or doubled, and that they are read back in order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.errors import RunnerError
from runner.storage.artifact import scan_folder
from stages.data.prediction import Prediction, read_predictions
from stages.infer import predictions
from stages.infer.predictions import write_parts

SOURCE = {"id": "test-000003", "input": "¿Qué?", "output": "f(a[x])", "year": None}
OUTPUT = {"generated_text": "f(a[y])", "num_input_tokens": 12, "num_generated_tokens": 5}


def test_a_line_holds_answer_reference_counts_and_the_rows_own_columns() -> None:
    assert json.loads(Prediction.made(SOURCE, "tuned", "f(a[x])", OUTPUT, None).line()) == {
        "id": "test-000003",
        "variant": "tuned",
        "prediction": "f(a[y])",
        "reference": "f(a[x])",
        "num_input_tokens": 12,
        "num_generated_tokens": 5,
        "error": None,
        "row": {"input": "¿Qué?", "output": "f(a[x])", "year": None},
    }


def test_a_refused_row_has_its_reason_and_no_answer() -> None:
    line = json.loads(Prediction.made(SOURCE, "base", "f(a[x])", {}, "ValueError: too long\nat line 3").line())
    assert line["error"] == "ValueError: too long"
    assert line["prediction"] == ""
    assert line["num_generated_tokens"] == 0


def test_predictions_are_read_back_in_the_order_written_over_several_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "ROWS_PER_FILE", 2)
    folder = tmp_path / "predictions"
    folder.mkdir()
    (folder / "part-00007.jsonl").write_text("of an earlier attempt\n")
    made = [Prediction.made({**SOURCE, "id": f"test-{index}"}, "base", "", OUTPUT, None) for index in range(5)]
    write_parts(folder, (each.line() for each in made))
    artifact = scan_folder("predictions", folder)
    assert [entry.path for entry in artifact.files] == ["part-00000.jsonl", "part-00001.jsonl", "part-00002.jsonl"]
    assert list(read_predictions(artifact)) == made
    assert [path.name for path in tmp_path.iterdir()] == ["predictions"]


def test_a_line_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "part-00000.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(RunnerError, match="not a prediction"):
        list(read_predictions(scan_folder("predictions", tmp_path)))
