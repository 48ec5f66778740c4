"""The predictions' files: what a line holds, that none is lost or doubled, and that they are read back in order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.errors import RunnerError
from runner.manifest import scan_folder
from stages import predictions
from stages.predictions import PredictionWriter, prediction_line, prediction_rows

SOURCE = {"id": "test-000003", "input": "¿Qué?", "output": "f(a[x])", "year": None}
OUTPUT = {"generated_text": "f(a[y])", "num_input_tokens": 12, "num_generated_tokens": 5}


def test_a_line_holds_answer_reference_counts_and_the_rows_own_columns() -> None:
    assert json.loads(prediction_line(SOURCE, "tuned", "f(a[x])", OUTPUT, None)) == {
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
    line = json.loads(prediction_line(SOURCE, "base", "f(a[x])", {}, "ValueError: too long\nat line 3"))
    assert line["error"] == "ValueError: too long"
    assert line["prediction"] == ""
    assert line["num_generated_tokens"] == 0


def test_predictions_are_read_back_in_the_order_written_over_several_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "ROWS_PER_FILE", 2)
    with PredictionWriter(tmp_path, 3, ["tuned", "base"]) as writer:
        for index in range(3):
            for variant in ("tuned", "base"):
                writer.add(index, variant, json.dumps({"index": index, "variant": variant}))
        writer.check_complete()
    assert writer.count == writer.num_expected == 6
    artifact = scan_folder("predictions", tmp_path)
    assert [entry.path for entry in artifact.files] == ["part-00000.jsonl", "part-00001.jsonl", "part-00002.jsonl"]
    assert [(row["index"], row["variant"]) for row in prediction_rows(artifact)] == [
        (index, variant) for index in range(3) for variant in ("tuned", "base")
    ]


def test_a_row_predicted_twice_is_refused(tmp_path: Path) -> None:
    with PredictionWriter(tmp_path, 2, ["tuned", "base"]) as writer:
        writer.add(1, "tuned", "{}")
        writer.add(1, "base", "{}")
        with pytest.raises(RunnerError, match=r"test row 1 was predicted twice \(base\)"):
            writer.add(1, "base", "{}")


def test_a_lost_row_is_named(tmp_path: Path) -> None:
    with PredictionWriter(tmp_path, 3, ["tuned"]) as writer:
        writer.add(0, "tuned", "{}")
        writer.add(2, "tuned", "{}")
        with pytest.raises(RunnerError, match=r"1 of 3 test rows have no prediction \(tuned\), row 1 for one"):
            writer.check_complete()
