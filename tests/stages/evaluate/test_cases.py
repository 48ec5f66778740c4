"""Rows of the report: calls as text, and the reasoning that the scored answer does not hold."""

from __future__ import annotations

from pathlib import Path

from runner.storage.artifact import scan_folder
from stages.data.answer import Answer
from stages.data.example import Example
from stages.data.prediction import Prediction
from stages.evaluate.cases import Cases
from stages.infer.predictions import write_parts

CALL = {"type": "function", "function": {"name": "stock", "arguments": {"item": "rye"}}}
SHOWN = '<tool_call>{"arguments": {"item": "rye"}, "name": "stock"}</tool_call>'


def test_calls_and_reasoning_are_shown(tmp_path: Path) -> None:
    example = Example(
        "test-0",
        [
            {"role": "user", "content": "Rye?"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "2", "tool_call_id": "c"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
        ],
    )
    read = Answer("", [{"name": "stock", "arguments": {"item": "oat"}}], "It may be oat.\n")
    output = {"generated_text": "raw", "num_input_tokens": 1, "num_generated_tokens": 1}
    write_parts(tmp_path / "predictions", [Prediction.of(example, "base", output, None, read).line()])
    predictions = scan_folder("predictions", tmp_path / "predictions", {"variants": ["base"], "num_rows": 1})
    recipe = {"dataset": {"prompt": {"conversations": "messages"}}, "evaluate": {"metrics": ["calls_match"]}}
    (row,) = Cases(predictions, recipe).rows()
    assert row["turns"] == [("user", "Rye?"), ("assistant", SHOWN), ("tool", "2")]
    assert "".join(text for _, text in row["expected"]) == SHOWN
    assert row["reasoning"] == "It may be oat."
    assert row["metrics"] == [("calls_match", 0.0)]
