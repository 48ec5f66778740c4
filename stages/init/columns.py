"""Which columns are the question and which is the answer, by their names and then by what they hold."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stages.init.nested import nested, options_of, with_texts

ASKED = (
    "text", "question", "input", "prompt", "instruction", "query", "sentence", "utterance", "message", "body",
    "content", "description", "review", "comment", "ticket", "email", "document", "article", "source", "request",
    "user", "human",
)  # fmt: skip
REPLIES = (
    "answer", "output", "completion", "response", "reply", "target", "summary", "translation", "solution", "assistant",
)  # fmt: skip
SYSTEM = ("system", "system_prompt", "system_message")
LABELS = (
    "label", "labels", "category", "class", "intent", "sentiment", "topic", "team", "department", "queue", "tag",
    "type", "priority",
)  # fmt: skip
_SEVERAL = ("answers", "tags", "topics", "categories", "intents", "entities", "keywords")
"""Names of answers that are several."""
_BEFORE = ("context", "passage", "subject", "title", "headline")
"""Columns that belong before the question, one of them: the first of these."""
_NEVER = re.compile(r"(^|_)(id|uuid|guid|date|time|timestamp|created|updated|url|index|split)($|_)")
_DATE = re.compile(r"\d{1,4}([-./])\d{1,2}\1\d{1,4}([ T].*)?|\d{1,2}:\d{2}(:\d{2})?")
_MOST_LABELS, _LABEL_CHARS = 100, 60


@dataclass(frozen=True)
class Guess:
    """user, assistant: templates. certain: whether the names alone say so. why: what the guess is from."""

    user: str
    assistant: str
    certain: bool
    why: str


@dataclass(frozen=True)
class Held:
    """What a column holds: rows that have it, distinct values, the mean length of a value in characters, and whether
    the values are dates or times."""

    count: int
    distinct: int
    mean_chars: float
    dates: bool = False

    @property
    def labels(self) -> bool:
        """Whether a few short values come again and again."""
        return (
            not self.dates
            and 2 <= self.distinct <= min(_MOST_LABELS, self.count // 3)
            and self.mean_chars <= _LABEL_CHARS
        )


def headless(rows: Sequence[Mapping[str, Any]]) -> str:
    """What tells that the names of the columns are a row themselves, or "": a column of labels has its name as
    one of them."""
    for name in columns_of(rows):
        held = held_by(rows, name)
        count = sum(row.get(name) == name for row in rows)
        if held and held.labels and count > 1:
            return (
                f"the column {name!r} holds {name!r} in {count} rows: if the file has no header, its first row "
                "was read as one; put a line with the columns' names at its top"
            )
    return ""


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rows' columns, in order."""
    return list(dict.fromkeys(name for row in rows[:1000] for name in row))


def guess(rows: Sequence[Mapping[str, Any]]) -> Guess | None:
    """The question and the answer of the rows; None where nothing tells."""
    names = columns_of(rows)
    replies = [name for name in names if plain(name) in (*REPLIES, *LABELS, *_SEVERAL)]
    templates, options = nested(rows, replies), options_of(rows)
    shown = with_texts(rows, templates)
    held = {name: each for name in names if (each := held_by(shown, name)) is not None}
    usable = {name: each for name, each in held.items() if not re.search(r"[{}|]", name)}
    texts = {name: each for name, each in usable.items() if name not in templates}
    found = _by_name(usable) or _of_several(texts, templates) or _by_content(texts)
    if found is None:
        return None
    user = f"{found.user}\n{{{options}|lines}}" if options else found.user
    return replace(found, user=user, assistant=templates.get(found.assistant[1:-1], found.assistant))


def _of_several(held: Mapping[str, Held], templates: Mapping[str, str]) -> Guess | None:
    """The longest texts are the question, where a column of lists or objects has an answer's name."""
    usable = [name for name in held if not _NEVER.search(plain(name))]
    if not usable or not templates:
        return None
    question, answer = max(usable, key=lambda name: held[name].mean_chars), next(iter(templates))
    return Guess(_question(question, held), f"{{{answer}}}", False, f"{question} has the longest texts")


def held_by(rows: Sequence[Mapping[str, Any]], name: str) -> Held | None:
    """What the column holds; None for one that holds no text, number or truth value."""
    values = [row[name] for row in rows if row.get(name) not in (None, "")]
    if not values or any(isinstance(value, list | dict | bytes) for value in values):
        return None
    texts = [str(value) for value in values]
    dates = all(_DATE.fullmatch(text.strip()) for text in texts)
    return Held(len(texts), len(set(texts)), sum(map(len, texts)) / len(texts), dates)


def plain(name: str) -> str:
    """The name in lower case, its words joined by underscores."""
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()).strip("_")


def _by_name(held: Mapping[str, Held]) -> Guess | None:
    asked, replies, labels = (_named(held, known) for known in (ASKED, (*REPLIES, *_SEVERAL), LABELS))
    labels = [name for name in labels if held[name].mean_chars <= _LABEL_CHARS]
    answers = [name for name in [*replies, *labels] if name not in asked[:1]]
    if not asked or not answers:
        return None
    question, answer = asked[0], answers[0]
    asked = [name for name in asked if name != answer]
    exact = plain(question) in ASKED and plain(answer) in (*REPLIES, *_SEVERAL, *LABELS)
    alone = len(asked) == 1 and len(answers) == 1
    why = "by their names" + ("" if alone else f"; {_others(asked[1:], answers[1:])} might be meant too")
    return Guess(_question(question, held), f"{{{answer}}}", exact and alone, why)


def _named(held: Mapping[str, Held], known: Sequence[str]) -> list[str]:
    """Columns of these names first, in the order of `known`; then those of which a word is one."""
    usable = {name: plain(name) for name in held if not _NEVER.search(plain(name))}
    whole = [name for word in known for name, each in usable.items() if each == word]
    part = [name for word in known for name, each in usable.items() if word in each.split("_") and name not in whole]
    return list(dict.fromkeys([*whole, *part]))


def _others(asked: Sequence[str], answers: Sequence[str]) -> str:
    return " and ".join(dict.fromkeys([*asked, *answers]))


def _question(name: str, held: Mapping[str, Held]) -> str:
    """The question's column, after a subject or title if the rows have one."""
    first = next((each for word in _BEFORE for each in held if plain(each) == word and each != name), None)
    return f"{{{first}|}}\n{{{name}}}" if first else f"{{{name}}}"


def _by_content(held: Mapping[str, Held]) -> Guess | None:
    """The longest texts are the question; the answer is a column of labels, or the only other one."""
    usable = {name: each for name, each in held.items() if not _NEVER.search(plain(name)) and not each.dates}
    if len(usable) < 2:
        return None
    question = max(usable, key=lambda name: usable[name].mean_chars)
    others = [name for name in usable if name != question]
    labels = [name for name in others if usable[name].labels]
    if labels:
        more = f"; {_others(labels[1:], ())} might be meant too" if labels[1:] else ""
        why = f"{question} has the longest texts, {labels[0]} a few short values{more}"
        return Guess(_question(question, usable), f"{{{labels[0]}}}", False, why)
    if len(usable) == 2:
        first, second = usable
        return Guess(f"{{{first}}}", f"{{{second}}}", False, "there are two columns")
    return None
