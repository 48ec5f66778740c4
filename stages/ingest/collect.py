"""Rows of a split to Examples in a file, with the bad ones counted by kind. Memory stays flat."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.data.example import BadRowError, Example, text_of
from stages.data.shapes.convert import Convert, Row

MOST_KINDS = 50
MOST_PLACES = 3
_VARIABLE = re.compile(r"'[^']*'|\d+")
_CONTROL = re.compile(
    rb"<\|[a-z_]{2,20}\|>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>|<(?:bos|eos)>|<\xef\xbd\x9c[^<>]{2,40}\xef\xbd\x9c>"
)
_MOST_KEYS = 20_000_000
"""Rows whose keys are remembered, 16 bytes each, to find duplicates."""

OnRows = Callable[[int], None]
Placed = Iterable[tuple[str, "Row | BadRowError"]]
"""Rows with their places ("file:line")."""


@dataclass
class Kind:
    """Bad rows for one reason: the first one's words, how many, and where the first are."""

    why: str
    fix: str
    count: int = 0
    places: list[str] = field(default_factory=list)


@dataclass
class Collected:
    """What became of a split's rows. prompts, answers: a key of each good row, equal for equal texts."""

    num_rows: int = 0
    num_bad: int = 0
    kinds: dict[str, Kind] = field(default_factory=dict)
    prompts: array[int] = field(default_factory=lambda: array("q"))
    answers: array[int] = field(default_factory=lambda: array("q"))
    num_equal_pairs: int = 0
    num_control: int = 0
    control: str = ""
    control_at: str = ""

    def refuse(self, place: str, error: BadRowError) -> None:
        """Count a bad row under its kind."""
        self.num_bad += 1
        key = _VARIABLE.sub("?", error.why)
        if key not in self.kinds and len(self.kinds) >= MOST_KINDS:
            key = ""
        found = self.kinds.setdefault(key, Kind(error.why if key else "of other kinds", error.fix if key else ""))
        found.count += 1
        if len(found.places) < MOST_PLACES:
            found.places.append(place)

    def accept(self, example: Example, line: bytes) -> None:
        """Count a good row, which is written as that line."""
        self.num_rows += 1
        if (b"<" in line or b"[" in line) and (token := _CONTROL.search(line)):
            self.num_control += 1
            self.control, self.control_at = self.control or token[0].decode(), self.control_at or example.source
        if example.chosen is not None and example.chosen == example.rejected:
            self.num_equal_pairs += 1
        if len(self.prompts) < _MOST_KEYS:
            self.prompts.append(hash(prompt_text(example)))
            self.answers.append(hash(example.reference))


def prompt_text(example: Example) -> str:
    """What tells prompts apart, as one text."""
    if example.text is not None:
        return example.text
    return "\0".join([part for each in example.prompt for part in (each["role"], _content(each))])


def _content(message: Any) -> str:
    return (
        message["content"] if isinstance(message["content"], str) else text_of(message) + repr(sorted(message.items()))
    )


def collect(
    rows: Placed,
    target: Path,
    convert: Convert,
    split: str,
    limit: int | None,
    on_rows: OnRows,
    on_example: Callable[[Example], None] = lambda example: None,
) -> Collected:
    """Write each good row as an Example's line of the target; count the bad ones. Stops after `limit` good rows.

    Ids are the split and the number of the good row from zero: "train-000012".
    """
    found = Collected()
    with target.open("wb") as file:
        for place, row in rows:
            if found.num_rows == limit:
                break
            try:
                if isinstance(row, BadRowError):
                    raise row
                example = convert(row, f"{split}-{found.num_rows:06d}", place)
                line = example.to_json().encode() + b"\n"
                on_example(example)
            except BadRowError as error:
                found.refuse(place, error)
                continue
            except UnicodeEncodeError:
                found.refuse(place, BadRowError("has half a surrogate pair, which is no text", "Write it as UTF-8."))
                continue
            except ValueError as error:
                found.refuse(place, BadRowError(f"cannot be written as JSON: {error}"))
                continue
            file.write(line)
            found.accept(example, line)
            if found.num_rows % 1000 == 0:
                on_rows(found.num_rows)
    return found
