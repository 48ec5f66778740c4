"""Preference pairs: a prompt with a chosen and a rejected answer, in TRL's, OpenAI's and LLaMA-Factory's spellings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from stages.data.example import BadRowError, Message, is_blank, text_of
from stages.data.prompt import cell, names, only_column, render
from stages.data.readers.json_values import value_of
from stages.data.shapes.conversation import from_column, holds_messages, messages_of, parsed, with_system
from stages.data.shapes.history import history_of
from stages.sections.dataset import Dataset

_DIALOGUE = re.compile(r"\s*(?:### ?)?(?:Human|User|Prompter):.+?(?:\n\s*|### ?)(?:Assistant|AI|Bot):", re.DOTALL)
DIALOGUES = "whole dialogues as texts (Human: ..., Assistant: ...)"
SEPARATE = "Write the question in a column of its own, or each dialogue as a list of messages."
CHOSEN = ("chosen", "preferred_output")
REJECTED = ("rejected", "non_preferred_output")


def has_pair(dataset: Dataset, row: Mapping[str, Any]) -> bool:
    """Whether the row has both answers."""
    return _named(dataset.prompt.chosen, CHOSEN, row) is not None and (
        _named(dataset.prompt.rejected, REJECTED, row) is not None
    )


def pair_fields(dataset: Dataset, row: Mapping[str, Any]) -> dict[str, Any]:
    """`messages` (the prompt), `chosen` and `rejected`, each one answer. Raises BadRowError for any other row."""
    chosen = _answer(dataset, row, dataset.prompt.chosen, CHOSEN, "chosen")
    rejected = _answer(dataset, row, dataset.prompt.rejected, REJECTED, "rejected")
    asked = _asked(dataset, row, chosen)
    prompt = asked if asked is not None else chosen[:-1]
    _refuse_numbers(dataset, row)
    if is_dialogue(text_of(chosen[-1])) and is_dialogue(text_of(rejected[-1])):
        raise BadRowError(f"its answers are {DIALOGUES}", SEPARATE)
    if {text_of(chosen[-1]), text_of(rejected[-1])} <= row.keys():
        raise BadRowError(
            f"its answers are the names of its columns {text_of(chosen[-1])!r} and {text_of(rejected[-1])!r}",
            "Give rows that have the better text in one column and the worse one in another.",
        )
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        before, last = answer[:-1], answer[-1]
        if before and before not in (prompt, [each for each in prompt if each["role"] != "system"]):
            raise BadRowError(
                f"its {name} answer follows other messages than its prompt",
                "chosen and rejected are answers to one prompt: give the answers alone, or repeat the prompt in both.",
            )
        if last["role"] != "assistant":
            raise BadRowError(f"its {name} answer ends with a message of the {last['role']}, not of the assistant")
        if last.get("train") is False:
            fix = "Remove the flag (train, weight, loss), or the row: both answers of a pair are learned."
            raise BadRowError(f"says of its {name} answer that it is not to be learned", fix)
    if not prompt or prompt[-1]["role"] not in ("user", "tool"):
        column = next((name for name in ("prompt", "question", "instruction", "messages") if row.get(name)), "COLUMN")
        fix = f"Name what was asked: dataset.prompt.user='{{{column}}}'." if dataset.prompt.user is None else ""
        raise BadRowError("its prompt does not end with a message of the user", fix)
    return {"messages": with_system(dataset, prompt, row), "chosen": chosen[-1:], "rejected": rejected[-1:]}


def is_dialogue(text: str) -> bool:
    """Whether a text has the turns of a question and its answer, each with who says it."""
    return _DIALOGUE.match(text) is not None


def _refuse_numbers(dataset: Dataset, row: Mapping[str, Any]) -> None:
    """Raise BadRowError where chosen and rejected are the places of two answers in a list of the row."""
    names = [_named(dataset.prompt.chosen, CHOSEN, row), _named(dataset.prompt.rejected, REJECTED, row)]
    places = [place for name in names if name is not None and type(place := row.get(name)) is int and place >= 0]
    if len(places) < len(names):
        return
    for name, value in row.items():
        if isinstance(value, list) and len(value) > max(places) and all(isinstance(each, str | dict) for each in value):
            raise BadRowError(
                f"its answers are the numbers of two entries of its column {name!r}",
                "Give rows that have the better text in one column and the worse one in another.",
            )


def _named(template: str | None, known: tuple[str, ...], row: Mapping[str, Any]) -> str | None:
    """The column of an answer: the recipe's, or the first known one of the row."""
    if template is not None:
        return only_column(template) or template
    return next((name for name in known if row.get(name) is not None), None)


def _answer(
    dataset: Dataset, row: Mapping[str, Any], template: str | None, known: tuple[str, ...], name: str
) -> list[Message]:
    column = _named(template, known, row)
    if column is None and (there := next((each for each in known if each in row), None)):
        raise BadRowError(f"column {there!r} is null", "Remove the row, or give it both answers.")
    if column is None:
        raise BadRowError(
            f"lacks the column {known[0]!r}; it has: {names(row)}", f"Name it in dataset.prompt.{name}, in braces."
        )
    value = parsed(cell(row, column))
    _refuse_nested(value, column)
    if holds_messages(value):
        messages = messages_of(dataset, row, column)
        return messages or _empty(name)
    text = render(template or f"{{{column}}}", row) if value != "" else ""
    return [{"role": "assistant", "content": text}] if not is_blank(text) else _empty(name)


def _refuse_nested(value: Any, column: str) -> None:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        with suppress(ValueError):
            value = value_of(value)
    if isinstance(value, Mapping) and isinstance(value.get("messages"), list):
        raise BadRowError(
            f"column {column!r} is an object that has messages, not messages or a text",
            "Write the list of messages itself in the column, and tools in a column of their own.",
        )


def _empty(name: str) -> list[Message]:
    raise BadRowError(f"its {name} answer is empty", "Remove the row, or give it both answers.")


def _asked(dataset: Dataset, row: Mapping[str, Any], chosen: list[Message]) -> list[Message] | None:
    """The prompt's messages; None where the answers repeat it and no key names another."""
    column, template = dataset.prompt.conversations, dataset.prompt.user
    if column is not None:
        chosen_column = _named(dataset.prompt.chosen, CHOSEN, row)
        return None if column == chosen_column else from_column(dataset, row, column)
    if template is None:
        return None
    name = only_column(template)
    if name is not None and holds_messages(parsed(cell(row, name))):
        return messages_of(dataset, row, name)
    return [*history_of(dataset, row), {"role": "user", "content": render(template, row)}]
