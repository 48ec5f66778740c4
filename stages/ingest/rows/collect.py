"""Rows of a split to Examples in a file, with the bad ones counted by kind. Memory stays flat."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xxhash import xxh3_64_intdigest as digest

from stages.data.example import BadRowError, Example, text_of
from stages.data.shapes.convert import Convert, Row
from stages.ingest.rows.control import ControlTokens

MOST_KINDS = 50
MOST_PLACES = 3
_VARIABLE = re.compile(r"'[^']*'|\d+")
_MISSING = frozenset(("nan", "NaN", "NAN", "None", "none", "null", "NULL", "Null", "NA", "N/A", "n/a", "<NA>", "#N/A"))
"""Texts that tools write for a value that is missing."""
_MOST_KEYS = 20_000_000
"""Rows whose keys are remembered, 20 bytes each, to find duplicates."""

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
class Found:
    """Rows with something worth a remark: how many, what the first one has, and where it is."""

    count: int = 0
    what: str = ""
    place: str = ""

    def add(self, what: str, place: str) -> None:
        """Count a row."""
        if not self.count:
            self.what, self.place = what, place
        self.count += 1

    def merge(self, later: Found) -> None:
        """Add rows that come after these."""
        if not self.count:
            self.what, self.place = later.what, later.place
        self.count += later.count


@dataclass
class Collected:
    """What became of a split's rows. prompts, answers: a key of each good row, equal for equal texts. num_chars: of
    prompt and answer together. columns: of the first row. knows_control: whether control tokens are the model's own."""

    num_rows: int = 0
    num_bad: int = 0
    kinds: dict[str, Kind] = field(default_factory=dict)
    prompts: array[int] = field(default_factory=lambda: array("Q"))
    answers: array[int] = field(default_factory=lambda: array("Q"))
    num_chars: array[int] = field(default_factory=lambda: array("I"))
    equal_pairs: Found = field(default_factory=Found)
    control: Found = field(default_factory=Found)
    missing: Found = field(default_factory=Found)
    labels: Counter[bool] = field(default_factory=Counter)
    has_pairs: bool = False
    knows_control: bool = False
    columns: tuple[str, ...] = ()

    def refuse(self, place: str, error: BadRowError) -> None:
        """Count a bad row under its kind."""
        self.num_bad += 1
        self._note(Kind(error.why, error.fix, 1, [place]))

    def _note(self, kind: Kind) -> None:
        key = _VARIABLE.sub("?", kind.why)
        if key not in self.kinds and len(self.kinds) >= MOST_KINDS:
            key = ""
        found = self.kinds.setdefault(key, Kind(kind.why if key else "of other kinds", kind.fix if key else ""))
        found.count += kind.count
        found.places += kind.places[: MOST_PLACES - len(found.places)]

    def accept(self, example: Example, line: bytes, control: ControlTokens) -> None:
        """Count a good row, which is written as that line."""
        self.num_rows += 1
        place, reference = example.source, example.reference
        if token := control.first(line):
            self.control.add(token, place)
        if reference in _MISSING:
            self.missing.add(reference, place)
        prompt, answer = prompt_text(example), reference
        if example.chosen is not None:
            self.has_pairs = True
            if example.chosen == example.rejected:
                self.equal_pairs.add("", place)
            answer = "\0".join((reference, *(_content(each) for each in example.rejected or ())))
        elif example.label is not None:
            self.labels[example.label] += 1
            answer = f"{reference}\0{example.label}"
        if len(self.prompts) < _MOST_KEYS:
            self.prompts.append(digest(prompt.encode()))
            self.answers.append(digest(answer.encode()))
            self.num_chars.append(len(prompt) + len(answer))

    def merge(self, later: Collected) -> None:
        """Add what became of rows that come after these."""
        self.num_rows += later.num_rows
        self.num_bad += later.num_bad
        for kind in later.kinds.values():
            self._note(kind)
        for name in ("prompts", "answers", "num_chars"):
            getattr(self, name).extend(getattr(later, name))
        for name in ("equal_pairs", "control", "missing"):
            getattr(self, name).merge(getattr(later, name))
        self.labels += later.labels
        self.has_pairs = self.has_pairs or later.has_pairs
        self.knows_control = self.knows_control or later.knows_control
        self.columns = self.columns or later.columns


def prompt_text(example: Example) -> str:
    """What tells prompts apart, as one text."""
    if example.text is not None:
        return example.text
    prompt = example.prompt
    if len(prompt) == 1 and type(content := prompt[0]["content"]) is str:
        return f"{prompt[0]['role']}\0{content}"
    return "\0".join([part for each in prompt for part in (each["role"], _content(each))])


def _content(message: Any) -> str:
    content = message["content"]
    return content if isinstance(content, str) else text_of(message) + repr(sorted(message.items()))


def collect(
    rows: Placed,
    target: Path,
    convert: Convert,
    split: str,
    limit: int | None,
    on_rows: OnRows,
    on_example: Callable[[Example], None] | None = None,
    control: ControlTokens | None = None,
) -> Collected:
    """Write each good row as an Example's line of the target; count the bad ones. Stops after `limit` good rows.

    Ids are the split and the number of the good row from zero: "train-000012". control: the model's control tokens,
    where they are known.
    """
    control = control or ControlTokens()
    found = Collected(knows_control=control.known)
    with target.open("wb") as file:
        for place, row in rows:
            if found.num_rows == limit:
                break
            try:
                if isinstance(row, BadRowError):
                    raise row
                example = convert(row, f"{split}-{found.num_rows:06d}", place)
                line = example.to_json().encode() + b"\n"
                if on_example is not None:
                    on_example(example)
            except BadRowError as error:
                found.refuse(place, error)
                continue
            except UnicodeEncodeError:
                found.refuse(place, BadRowError("has half a surrogate pair, which is not text", "Write it as UTF-8."))
                continue
            except ValueError as error:
                found.refuse(place, BadRowError(f"cannot be written as JSON: {error}"))
                continue
            file.write(line)
            found.accept(example, line, control)
            if found.num_rows % 1000 == 1:
                found.columns = found.columns or tuple(row)
                on_rows(found.num_rows)
    return found
