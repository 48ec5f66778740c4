"""A model's answer to a row of the test set, as the predictions' files hold it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from runner.errors import RunnerError
from runner.storage.artifact import Artifact
from stages.data.answer import Answer, Call, calls_of
from stages.data.example import Example, Message, one_line

TUNED = "tuned"
BASE = "base"

_MAX_ERROR_CHARS = 500
_OPTIONAL = ("messages", "calls", "expected_calls", "reasoning", "expected_reasoning")


@dataclass(frozen=True, slots=True)
class Prediction:
    """id: of the row. variant: who answered, `tuned` (the adapter) or `base`. prediction: the answer's text with its
    calls (`answer_text`), "" where the engine refused the row. reference: what was expected, in the same form. error:
    why it was refused, else None. row: its columns. messages: that were asked. calls, expected_calls: of answer and
    reference. reasoning, expected_reasoning: None where the text may hold it, or there is none.
    """

    id: str
    variant: str
    prediction: str
    reference: str
    num_input_tokens: int
    num_generated_tokens: int
    error: str | None
    row: dict[str, Any]
    messages: list[Message] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    expected_calls: list[Call] = field(default_factory=list)
    reasoning: str | None = None
    expected_reasoning: str | None = None

    @classmethod
    def of(
        cls, example: Example, variant: str, output: Mapping[str, Any], error: str | None, read: Answer | None = None
    ) -> Prediction:
        """output: `generated_text` and the token counts; not read where there is an error. read: what the engine makes
        of the text; None: it is the answer as it is."""
        source = {**example.columns, "id": example.id}
        made = cls.made(source, variant, example.reference, output, error)
        expected: Mapping[str, Any] = example.answer or {}
        made = replace(
            made,
            row=example.columns,
            messages=example.prompt,
            expected_calls=calls_of(expected),
            expected_reasoning=expected.get("reasoning_content"),
        )
        if error or read is None:
            return made
        return replace(made, prediction=read.text, calls=read.calls, reasoning=read.reasoning)

    @classmethod
    def made(
        cls, source: Mapping[str, Any], variant: str, reference: str, output: Mapping[str, Any], error: str | None
    ) -> Prediction:
        """source: the test row. output: `generated_text` and the token counts; not read where there is an error."""
        return cls(
            id=source["id"],
            variant=variant,
            prediction="" if error else output["generated_text"],
            reference=reference,
            num_input_tokens=0 if error else output["num_input_tokens"],
            num_generated_tokens=0 if error else output["num_generated_tokens"],
            error=error.strip().splitlines()[0][:_MAX_ERROR_CHARS] if error else None,
            row={key: value for key, value in source.items() if key != "id"},
        )

    @classmethod
    def parse(cls, line: str) -> Prediction:
        """Read a line of a file. Raises RunnerError when it is not one."""
        try:
            return cls(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise RunnerError(f"not a prediction: {line[:80]!r} ({error})", "Run again: `force=[infer]`.") from error

    def line(self) -> str:
        """One line of JSON."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return one_line({name: value for name, value in values.items() if name not in _OPTIONAL or value})


def read_predictions(predictions: Artifact) -> Iterator[Prediction]:
    """Every prediction, file by file, one at a time."""
    for entry in predictions.files:
        if entry.path.endswith(".jsonl"):
            with (predictions.path / entry.path).open(encoding="utf-8") as file:
                yield from map(Prediction.parse, file)
