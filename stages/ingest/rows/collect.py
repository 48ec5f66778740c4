"""Rows of a split to Examples in a file, with the bad ones counted by kind. Memory stays flat."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xxhash import xxh3_64_intdigest as digest

from stages.data.example import BadRowError, Example, text_of
from stages.data.shapes.convert import Convert, Row
from stages.data.shapes.pictures import PLACE
from stages.data.shapes.quick import QuickLine
from stages.ingest.rows.control import ControlTokens
from stages.ingest.rows.damage import damage_of
from stages.ingest.rows.scripts import MOST_CHARS, script_of

MOST_KINDS = 50
MOST_PLACES = 3
_VARIABLE = re.compile(r"'[^']*'|\d+")
_MISSING = frozenset(("nan", "NaN", "NAN", "None", "none", "null", "NULL", "Null", "NA", "N/A", "n/a", "<NA>", "#N/A",
    "#VALUE!", "#REF!", "#NAME?", "#DIV/0!", "#NUM!", "#NULL!", "\\N"))  # fmt: skip
"""Texts that tools write for a value that is missing."""
_LEAST_REPEATED = 8  # characters of a question that an answer may begin with by chance
_SCORES = (
    ("score_chosen", "score_rejected"), ("chosen_score", "rejected_score"),
    ("rating_chosen", "rating_rejected"), ("chosen_rating", "rejected_rating"),
)  # fmt: skip
"""Columns of the scores of a preference pair's answers."""
_PLACE = PLACE.encode()
_MOST_JUDGED = 2_000_000
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
    """What became of a split's rows. prompts, answers: a key of each good row, equal for equal texts (of prompts, up to
    white space at their ends). num_chars: of prompt and answer together. scripts: of rows that are not ASCII. columns:
    of the first row. repeating: rows whose answer begins with the question. places: rows with a place for an image, and
    without one. damaged: rows with signs of a wrong encoding. judged: the label of each answer to a prompt (KTO);
    contradicted: of those that have both. num_bad_answers: rows left out because their answers are labelled bad.
    worse_chosen: pairs whose chosen answer has the lower score. knows_control: whether control tokens are the model's
    own."""

    num_rows: int = 0
    num_bad: int = 0
    kinds: dict[str, Kind] = field(default_factory=dict)
    prompts: array[int] = field(default_factory=lambda: array("Q"))
    answers: array[int] = field(default_factory=lambda: array("Q"))
    num_chars: array[int] = field(default_factory=lambda: array("I"))
    equal_pairs: Found = field(default_factory=Found)
    worse_chosen: Found = field(default_factory=Found)
    control: Found = field(default_factory=Found)
    missing: Found = field(default_factory=Found)
    repeating: Found = field(default_factory=Found)
    places: Found = field(default_factory=Found)
    damaged: Found = field(default_factory=Found)
    contradicted: Found = field(default_factory=Found)
    judged: dict[int, bool] = field(default_factory=dict)
    num_bad_answers: int = 0
    labels: Counter[bool] = field(default_factory=Counter)
    scripts: Counter[str] = field(default_factory=Counter)
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

    def of_pair(self, example: Example, reference: str) -> str:
        """Note what a preference pair or a labelled answer has; gives what tells the example's answer apart."""
        if example.chosen is not None:
            self.has_pairs = True
            if _alike(example.chosen, example.rejected or []):
                self.equal_pairs.add("", example.source)
            if (worse := text_of(example.rejected[-1]) if example.rejected else "") in _MISSING:
                self.missing.add(worse, example.source)
            return "\0".join((reference, *(_content(each) for each in example.rejected or ())))
        if example.label is not None:
            self.labels[example.label] += 1
            self._judge(digest(f"{prompt_text(example)}\0{reference}".encode()), example.label, example.source)
            return f"{reference}\0{example.label}"
        return reference

    def _judge(self, key: int, label: bool, place: str) -> None:
        if len(self.judged) < _MOST_JUDGED and self.judged.setdefault(key, label) != label:
            self.contradicted.add("", place)

    def count(self, line: bytes, prompt: str, answer: str) -> None:
        """Count a good row, which is written as that line."""
        self.num_rows += 1
        if not line.isascii():
            asked = prompt.rpartition("\0")[2]
            self.scripts[script_of(f"{asked[:MOST_CHARS]}{answer[:MOST_CHARS]}")] += 1
        if len(self.prompts) < _MOST_KEYS:
            self.prompts.append(digest(prompt.rstrip().encode()))
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
        for name in _FOUND:
            getattr(self, name).merge(getattr(later, name))
        for key, label in later.judged.items():
            self._judge(key, label, "a later file")
        self.labels += later.labels
        self.scripts += later.scripts
        self.has_pairs = self.has_pairs or later.has_pairs
        self.knows_control = self.knows_control or later.knows_control
        self.columns = self.columns or later.columns


_FOUND = (
    "equal_pairs", "worse_chosen", "control", "missing", "repeating", "places", "damaged", "contradicted",
)  # fmt: skip


def chosen_is_worse(row: Row) -> bool:
    """Whether the row gives its chosen answer a lower score than the rejected one."""
    for columns in _SCORES:
        with suppress(KeyError, TypeError, ValueError):
            chosen, rejected = (float(row[name]) for name in columns)
            return chosen < rejected
    return False


def prompt_text(example: Example) -> str:
    """What tells prompts apart, as one text; the same words about other images are another prompt."""
    if example.text is not None:
        return example.text
    prompt = example.prompt
    if len(prompt) == 1 and type(content := prompt[0]["content"]) is str:
        return f"{prompt[0]['role']}\0{content}"
    seen = [f"{digest(each.encode()):016x}" for each in example.images or ()]
    return "\0".join([*seen, *(part for each in prompt for part in (each["role"], _content(each)))])


def _alike(chosen: Any, rejected: Any) -> bool:
    """Whether two answers are equal, up to white space around their texts, which chat templates may trim."""
    first, second = ([{**each, "content": text_of(each).strip()} for each in answer] for answer in (chosen, rejected))
    return first == second


def _content(message: Any) -> str:
    content = message["content"]
    return content if isinstance(content, str) else text_of(message) + repr(sorted(message.items()))


@dataclass(frozen=True)
class Watch:
    """What looks at the rows as they are collected. on_rows: told how many, now and then. on_row: called with the text
    that tells prompts apart and the row's columns. on_example: with each Example. control: the model's control tokens,
    where they are known."""

    on_rows: OnRows = lambda done: None
    on_row: Callable[[str, Row], None] | None = None
    on_example: Callable[[Example], None] | None = None
    control: ControlTokens = field(default_factory=ControlTokens)


def collect(
    rows: Placed,
    target: Path,
    conversion: tuple[Convert, QuickLine | None],
    split: str,
    limit: int | None,
    watch: Watch,
) -> Collected:
    """Write each good row as an Example's line of the target; count the bad ones. Stops after `limit` good rows.

    Ids are the split and the number of the good row from zero: "train-000012".
    conversion: of any row, and of usual ones to their lines.
    """
    found, on_row, first_token = Collected(knows_control=watch.control.known), watch.on_row, watch.control.first
    convert, quick = conversion if watch.on_example is None else (conversion[0], None)
    with target.open("wb") as file:
        for place, row in rows:
            if found.num_rows == limit:
                break
            try:
                if isinstance(row, BadRowError):
                    raise row
                row_id = f"{split}-{found.num_rows:06d}"
                example, made = None, quick(row, row_id, place) if quick is not None else None
                if made is None:
                    example = convert(row, row_id, place)
                    made = example.to_json().encode() + b"\n", prompt_text(example), example.reference
                    if watch.on_example is not None:
                        watch.on_example(example)
                line, prompt, answer = made
                if on_row is not None:
                    on_row(prompt, row)
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
            texts = line.replace(_PLACE, b"") if example is not None and example.images else line
            if token := first_token(texts):
                found.control.add(token, place)
            if not line.isascii() and (damage := damage_of(line)):
                found.damaged.add(damage, place)
            if answer in _MISSING:
                found.missing.add(answer, place)
            if answer.startswith(asked := prompt.rpartition("\0")[2]) and len(asked) >= _LEAST_REPEATED:
                found.repeating.add("", place)
            if _PLACE in line and (example is None or not example.images):
                found.places.add("", place)
            if example is not None and example.chosen is not None and chosen_is_worse(row):
                found.worse_chosen.add("", place)
            found.count(line, prompt, answer if example is None else found.of_pair(example, answer))
            if found.num_rows % 1000 == 1:
                found.columns = found.columns or tuple(row)
                watch.on_rows(found.num_rows)
    return found
