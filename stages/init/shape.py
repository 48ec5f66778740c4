"""The shape of the rows: which training method they are for, and the prompt that fits them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from runner.errors import RunnerError, nearest
from stages.data.prompt import columns, has
from stages.data.shapes.preference import DIALOGUES, SEPARATE, is_dialogue
from stages.data.shapes.recognise import recognise
from stages.init.columns import SYSTEM, columns_of, guess, held_by, plain
from stages.init.nested import parts, plain_templates

_LOOKED_AT, _MOST_NAMED = 200, 20
_VERDICTS = ("true", "false")


@dataclass(frozen=True)
class Shape:
    """kind: as people call it. stage: `train.stage`. prompt: `dataset.prompt`. doubt: why it is a guess, or "".

    ignored: `dataset.ignore_keys`. roles: `dataset.roles`.
    """

    kind: str
    stage: str
    prompt: dict[str, Any]
    doubt: str = ""
    ignored: tuple[str, ...] = ()
    roles: dict[str, str] = field(default_factory=dict)


def shape_of(rows: Sequence[Mapping[str, Any]], user: str | None = None, answer: str | None = None) -> Shape:
    """The shape of the rows. user, answer: columns, or templates, that the command line names.

    Raises RunnerError with the columns when nothing tells which are the question and the answer.
    """
    kind, prompt = _recognised(rows)
    if kind.startswith("preference"):
        return _preference(rows, kind, prompt, user)
    if user is not None or answer is not None:
        return _given(rows, user, answer)
    if kind.startswith("KTO"):
        return Shape(kind, "kto", prompt)
    if kind == "prompt and completion" and _has_truth_labels(rows, prompt):
        return Shape("KTO", "kto", prompt)
    if kind and kind not in ("text", "prompt and completion"):
        return Shape(kind, "sft", plain_templates(rows, prompt))
    if kind == "prompt and completion" and not _scalar(rows, prompt):
        return Shape(kind, "sft", plain_templates(rows, prompt))
    return _guessed(rows, kind, prompt)


def _guessed(rows: Sequence[Mapping[str, Any]], kind: str, prompt: dict[str, Any]) -> Shape:
    found = guess(rows)
    if kind == "prompt and completion" and (found is None or not found.certain):
        others = f"the columns are {', '.join(columns_of(rows))}" if found else ""
        return Shape(kind, "sft", prompt, others)
    if found is not None:
        templates = {**_system(rows), "user": found.user, "assistant": found.assistant}
        return Shape("prompt and completion", "sft", templates, "" if found.certain else found.why)
    if kind == "text":
        talks = any(is_dialogue(str(row.get("text"))) for row in rows[:_LOOKED_AT])
        return Shape("text", "pt", prompt, "the texts are dialogues, learned as they are" if talks else "")
    names = columns_of(rows)
    if len(names) == 1 and all(isinstance(row.get(names[0]), str) for row in rows[:_LOOKED_AT]):
        return Shape("text", "pt", {"text": f"{{{names[0]}}}"}, "it is the only column")
    raise RunnerError(
        f"the rows do not tell which column is the question and which the answer; {_there(rows)}",
        "Name them: user=COLUMN answer=COLUMN.",
    )


def _system(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The system message, where a column of the rows is called so."""
    named = [name for name in columns_of(rows) if plain(name) in SYSTEM and held_by(rows, name)]
    return {"system": f"{{{named[0]}|}}"} if named else {}


def _recognised(rows: Sequence[Mapping[str, Any]]) -> tuple[str, dict[str, Any]]:
    """The shape of the first row that has a known one."""
    for row in rows[:_LOOKED_AT]:
        kind, text = recognise(row)
        if kind:
            return kind, yaml.safe_load(text) if text else {}
    return "", {}


def _has_truth_labels(rows: Sequence[Mapping[str, Any]], prompt: Mapping[str, Any]) -> bool:
    """TRL's KTO: a prompt, a completion, and a label that is true or false, in CSV as text."""
    if prompt.get("assistant") == "{label}":
        return False
    labels = (row.get("label") for row in rows[:_LOOKED_AT])
    return all(isinstance(each, bool | str) and str(each).strip().lower() in _VERDICTS for each in labels)


def _scalar(rows: Sequence[Mapping[str, Any]], prompt: Mapping[str, Any]) -> bool:
    """Whether the prompt's columns hold texts rather than messages."""
    named = [name for key in ("user", "assistant") for name in columns(prompt.get(key) or "")]
    return not any(isinstance(row.get(name), list | dict) for row in rows[:_LOOKED_AT] for name in named)


def _preference(rows: Sequence[Mapping[str, Any]], kind: str, prompt: dict[str, Any], user: str | None) -> Shape:
    if user is not None:
        return Shape(kind, "dpo", {"assistant": "{chosen}", **prompt, "user": _template(rows, "user", user)})
    if any(is_dialogue(value) for value in rows[0].values() if isinstance(value, str)):
        raise RunnerError(f"the rows are preference pairs with {DIALOGUES}", SEPARATE)
    if not prompt:
        raise RunnerError(
            f"the rows are preference pairs without a column of the question; {_there(rows)}", "Name it: user=COLUMN."
        )
    return Shape(kind, "dpo", prompt)


def _given(rows: Sequence[Mapping[str, Any]], user: str | None, answer: str | None) -> Shape:
    if user is None or answer is None:
        missing = "user" if user is None else "answer"
        raise RunnerError(
            f"{missing}= was not given",
            f"Name both: user=COLUMN answer=COLUMN; the rows have: {', '.join(columns_of(rows))}.",
        )
    templates = {"user": _template(rows, "user", user), "assistant": _template(rows, "answer", answer)}
    return Shape("prompt and completion", "sft", templates)


def _template(rows: Sequence[Mapping[str, Any]], key: str, value: str) -> str:
    """The template that a column's name, or a template, stands for. Raises RunnerError for a column that no row has."""
    template = value if "{" in value else f"{{{value}}}"
    for name in columns(template):
        if not any(has(row, name) for row in rows[:_LOOKED_AT]):
            near = nearest(name, columns_of(rows))
            hint = f"Did you mean {key}={near}?" if near else "Name a column of the rows."
            raise RunnerError(f"{key}={value}: the rows have no column {name!r}; {_there(rows)}", hint)
    return template


def _there(rows: Sequence[Mapping[str, Any]]) -> str:
    there = list(parts(rows, columns_of(rows)))
    return f"they have: {', '.join(there[:_MOST_NAMED])}{', ...' if len(there) > _MOST_NAMED else ''}"
