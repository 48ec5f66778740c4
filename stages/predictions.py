"""The predictions' files: JSON Lines in numbered parts, one object for each test row and variant, in the rows' order.

An object holds `id`, `variant` (`tuned` or `base`), `prediction`, `reference`, `num_input_tokens`,
`num_generated_tokens`, `error` (null, or why the engine refused the row) and `row` (the row's own columns).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from runner.errors import RunnerError
from runner.manifest import Artifact

TUNED = "tuned"
BASE = "base"
ROWS_PER_FILE = 10_000

_MAX_ERROR_CHARS = 500


def prediction_line(
    source: Mapping[str, Any], variant: str, reference: str, output: Mapping[str, Any], error: str | None
) -> str:
    """One line of a file. source: the test row. output: `generated_text` and the token counts, by vLLM's names.

    A row with an error has no prediction: its text is empty.
    """
    line = {
        "id": source["id"],
        "variant": variant,
        "prediction": "" if error else output["generated_text"],
        "reference": reference,
        "num_input_tokens": 0 if error else output["num_input_tokens"],
        "num_generated_tokens": 0 if error else output["num_generated_tokens"],
        "error": error.strip().splitlines()[0][:_MAX_ERROR_CHARS] if error else None,
        "row": {key: value for key, value in source.items() if key != "id"},
    }
    return json.dumps(line, ensure_ascii=False)


class PredictionWriter:
    """Writes lines into the part files of a folder, and knows which predictions are still to come.

    It takes one byte of memory for each test row and variant, so that the rows themselves need none.
    """

    def __init__(self, folder: Path, num_rows: int, variants: Sequence[str]) -> None:
        self._folder = folder
        self._seen = {variant: bytearray(num_rows) for variant in variants}
        self._file: IO[str] | None = None
        self.count = 0

    def __enter__(self) -> PredictionWriter:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file:
            self._file.close()

    @property
    def num_expected(self) -> int:
        return sum(map(len, self._seen.values()))

    def add(self, index: int, variant: str, line: str) -> None:
        """Append the prediction of the test row at that index. Raises RunnerError when it is there already."""
        if self._seen[variant][index]:
            raise RunnerError(
                f"test row {index} was predicted twice ({variant})", "Run infer again: `only=[infer] force=[infer]`."
            )
        self._seen[variant][index] = 1
        if self.count % ROWS_PER_FILE == 0:
            if self._file:
                self._file.close()
            name = f"part-{self.count // ROWS_PER_FILE:05d}.jsonl"
            self._file = (self._folder / name).open("w", encoding="utf-8")
        assert self._file is not None
        self._file.write(line + "\n")
        self.count += 1

    def check_complete(self) -> None:
        """Raise RunnerError naming the first row that has no prediction."""
        for variant, seen in self._seen.items():
            missing = seen.count(0)
            if missing:
                raise RunnerError(
                    f"{missing} of {len(seen)} test rows have no prediction ({variant}), row {seen.index(0)} for one",
                    "Run infer again; a lost row is a fault of the engine or of the cluster.",
                )


def prediction_rows(predictions: Artifact) -> Iterator[dict[str, Any]]:
    """Every row of the predictions, file by file, one at a time."""
    for entry in predictions.files:
        if entry.path.endswith(".jsonl"):
            with (predictions.path / entry.path).open(encoding="utf-8") as file:
                for line in file:
                    yield json.loads(line)
