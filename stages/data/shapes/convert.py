"""From a row to an `Example`, by the recipe's prompt and the training method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stages.data.example import BadRowError, Example, Message, is_blank, text_of
from stages.data.images import Images
from stages.data.messages import kind
from stages.data.prompt import cell, columns, only_column, render
from stages.data.shapes.calls import check_calls, without_filled
from stages.data.shapes.conversation import (
    are_answers,
    from_column,
    holds_messages,
    in_order,
    messages_of,
    parsed,
    with_system,
)  # fmt: skip
from stages.data.shapes.extras import MEDIA, PLACEHOLDERS, images_of, refuse_settings, tools_of, without_media
from stages.data.shapes.history import history_of
from stages.data.shapes.kto import label_of
from stages.data.shapes.pictures import holds_images, placed
from stages.data.shapes.preference import has_pair, pair_fields
from stages.data.shapes.quick import quick_messages
from stages.data.support import refuse_unused
from stages.sections.dataset import Dataset

Row = dict[str, Any]
Convert = Callable[[Row, str, str], Example]
"""From a row, its id and its place ("file:line")."""

TEXT_STAGES = ("pt",)
PAIR_STAGES = ("dpo", "rm")
MESSAGE_STAGES = ("sft", "ppo")


def make_example(dataset: Dataset, stage: str, split: str, *, keep_columns: bool = True) -> Convert:
    """The conversion of the split's rows for a training stage. Test rows are asked, so a label may be missing there.

    It raises BadRowError for a row that cannot be used.
    """
    fields = _fields(dataset, stage, split)
    quick = quick_messages(dataset.prompt) if stage in MESSAGE_STAGES else None
    images = Images(dataset)

    def convert(row: Row, row_id: str, source: str) -> Example:
        if quick is not None and (messages := quick(row)) is not None:
            return Example(id=row_id, messages=messages, columns=row if keep_columns else {}, source=source)
        made = fields(row)
        _check_texts([*made.get("messages", ()), *made.get("chosen", ()), *made.get("rejected", ())])
        if split != "test":
            _check_learned(made.get("messages", ()))
        kept = row if keep_columns else {}
        if holds_images(made.get("messages", ()), made.get("images", ())):
            made |= _pictured(made, stage, images)
            kept = without_media(kept)
        example = Example(id=row_id, columns=kept, source=source, **made)
        refuse_unused(example)
        return example

    return convert


def _pictured(made: Mapping[str, Any], stage: str, images: Images) -> dict[str, Any]:
    """The messages with places for their images, and the images."""
    if stage != "sft":
        raise BadRowError(f"has images, and train.stage={stage} takes none", "Set train.stage=sft, or remove them.")
    messages, found = placed(made["messages"], made.get("images", ()), images.load)
    return {"messages": messages, "images": found}


def _fields(dataset: Dataset, stage: str, split: str) -> Callable[[Row], dict[str, Any]]:
    prompt, is_test = dataset.prompt, split == "test"
    asks = prompt.user is not None or prompt.conversations is not None
    if stage in TEXT_STAGES and not (is_test and asks):
        return lambda row: {"text": text_of_row(dataset, row)}
    if stage in PAIR_STAGES:
        if not is_test:
            return lambda row: _pair(dataset, row)
        return lambda row: _pair(dataset, row) if has_pair(dataset, row) else conversation_fields(dataset, row)
    if stage == "kto":
        return lambda row: (
            conversation_fields(dataset, row) | {"label": label_of(prompt.label, row, required=not is_test)}
        )
    return lambda row: conversation_fields(dataset, row)


def conversation_fields(dataset: Dataset, row: Mapping[str, Any]) -> dict[str, Any]:
    """`messages`, the answer last, and the row's `tools` and `images` where it has a column of messages."""
    prompt = dataset.prompt
    if prompt.conversations is None:
        assert prompt.user is not None, "a recipe without user and without conversations is refused"
        assert prompt.assistant is not None, "a recipe without assistant and without conversations is refused"
        asked = turns_of(dataset, prompt.user, row, "user")
        turns = [*history_of(dataset, row), *asked, *_answer(dataset, prompt.assistant, row)]
        plain = len(turns) == 2 and turns[0]["role"] == "user" and turns[1]["role"] == "assistant"
        messages = with_system(dataset, turns, row) if plain else in_order(dataset, turns, row)
        return {"messages": messages, **_named_media(dataset, messages, row)}
    messages = in_order(dataset, from_column(dataset, row, prompt.conversations), row)
    refuse_settings(row, columns_used(dataset), dataset.ignore_keys)
    tools = tools_of(row, columns_used(dataset), dataset.ignore_keys)
    messages = without_filled(messages, tools)
    check_calls(messages, tools)
    return {"messages": messages, **_extras(dataset, messages, tools, row)}


def _pair(dataset: Dataset, row: Mapping[str, Any]) -> dict[str, Any]:
    """`pair_fields`, and the row's `tools` and `images` where it has a column of messages."""
    made = pair_fields(dataset, row)
    if dataset.prompt.conversations is None:
        return {**made, **_named_media(dataset, made["messages"], row)}
    refuse_settings(row, columns_used(dataset), dataset.ignore_keys)
    tools = tools_of(row, columns_used(dataset), dataset.ignore_keys)
    made = {name: without_filled(each, tools) for name, each in made.items()}
    for answer in ("chosen", "rejected"):
        check_calls([*made["messages"], *made[answer]], tools)
    return {**made, **_extras(dataset, made["messages"], tools, row)}


def _extras(dataset: Dataset, messages: list[Message], tools: Any, row: Mapping[str, Any]) -> dict[str, Any]:
    extras = {"tools": tools, "images": images_of(row, columns_used(dataset), map(text_of, messages))}
    return {name: value for name, value in extras.items() if value}


def _answer(dataset: Dataset, template: str, row: Mapping[str, Any]) -> list[Message]:
    """The assistant's part; a column of it that is missing is not to be left out."""
    try:
        turns = turns_of(dataset, template, row, "assistant")
        if any(each in template for each in ("|join", "|lines")) and is_blank(text_of(turns[0])):
            fix = "Remove the row, or write what stands for none: |default:none behind the filter."
            raise BadRowError("its list of answers is empty", fix)
        return turns
    except BadRowError as error:
        if "|}" not in error.fix:
            raise
        lacks = error.why.startswith("lacks")
        fix = (
            "Name a column of the row in dataset.prompt.assistant."
            if lacks
            else "Give the row an answer, or remove it."
        )
        raise BadRowError(error.why, fix) from None


def _named_media(dataset: Dataset, messages: list[Message], row: Mapping[str, Any]) -> dict[str, Any]:
    """The row's images, where a text has a place for them."""
    if MEDIA.isdisjoint(row) or not any(each in text_of(message) for message in messages for each in PLACEHOLDERS):
        return {}
    images = images_of(row, columns_used(dataset), map(text_of, messages))
    return {"images": images} if images else {}


def columns_used(dataset: Dataset) -> frozenset[str]:
    """Columns that the recipe's templates name themselves."""
    return frozenset(columns(dataset.prompt.system or ""))


def turns_of(dataset: Dataset, template: str, row: Mapping[str, Any], role: Any) -> list[Message]:
    """The template's text as one message; the messages themselves where it is a column that holds them, also as JSON
    text: of the assistant's column only answers, since a whole conversation may be what it is to write."""
    name = only_column(template)
    found = cell(row, name) if name is not None else None
    value = parsed(found)
    as_answers = role == "assistant" and isinstance(found, str)
    if name is not None and holds_messages(value) and (not as_answers or are_answers(value)):
        return messages_of(dataset, row, name)
    return [{"role": role, "content": render(template, row)}]


def text_of_row(dataset: Dataset, row: Mapping[str, Any]) -> str:
    """The text that pretraining learns: `dataset.prompt.text`, or the column `text`."""
    if dataset.prompt.text is None and not isinstance(row.get("text"), str):
        found = f"is {kind(row['text'])}" if "text" in row else "is missing"
        raise BadRowError(
            f"its column 'text' {found}, which train.stage=pt learns", "Name the columns in dataset.prompt.text."
        )
    text = render(dataset.prompt.text or "{text}", row)
    if is_blank(text):
        raise BadRowError("its text is empty")
    return text


def _check_learned(messages: Sequence[Message]) -> None:
    flags = [message.get("train") for message in messages if message["role"] == "assistant"]
    if flags and all(flag is False for flag in flags):
        fix = "Remove the row, or the flag (train, weight, loss) of the message that is to be learned."
        raise BadRowError("says of each answer that it is not to be learned", fix)


def _check_texts(messages: list[Message]) -> None:
    for message in messages:
        content = message["content"]
        if isinstance(content, list) or message.get("tool_calls") or message["role"] == "tool":
            continue
        if is_blank(text_of(message)):
            raise BadRowError(f"its {message['role']} message is empty", "Remove the row, or give the message a text.")
