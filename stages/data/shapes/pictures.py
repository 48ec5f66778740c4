"""Images of a row, in their places: each a part `{type: image}` of a message, and read from the row or its source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from runner.text import count_text
from stages.data.example import BadRowError, Message
from stages.data.messages import kind

PLACE = "<image>"
"""What stands in a text for an image of the column `images`."""
PART = {"type": "image"}
_VALUES = {
    "image": ("image", "url", "path", "bytes", "base64"),
    "image_url": ("image_url",),
    "input_image": ("image_url",),
}
_KEYS = {"url", "path", "bytes", "detail"}
Load = Callable[[Any], str]
"""Gives the data URI of an image that a row names or holds. Raises BadRowError."""


def holds_images(messages: Sequence[Message], images: Sequence[Any]) -> bool:
    """Whether a row has images, in a column or in its messages."""
    return bool(images) or any(_is_image(part) for message in messages for part in _parts(message))


def placed(messages: Sequence[Message], images: Sequence[Any], load: Load) -> tuple[list[Message], list[str]]:
    """The messages with a part `{type: image}` for each image, and the images as data URIs in that order.

    images: of the row's column, whose places are `<image>` in texts or parts without an image of their own; where
    there are no places, they stand before the first question.
    Raises BadRowError where places and images are not as many, or an image cannot be read.
    """
    made = [_split(message) if images else message for message in messages]
    places = sum(part == PART for message in made for part in _parts(message))
    if images and not places:
        made = _before_the_question(made, len(images))
    elif places != len(images):
        raise BadRowError(
            f"has {count_text(len(images), 'image')} in its column and {count_text(places, 'place')} for them",
            f"Write one {PLACE} for each image where it belongs, or none at all.",
        )
    column, found = iter(images), list[str]()
    return [_taken(message, column, found, load) for message in made], found


def _is_image(part: Mapping[str, Any]) -> bool:
    return part.get("type") in _VALUES


def _parts(message: Message) -> list[dict[str, Any]]:
    content = message["content"]
    return content if isinstance(content, list) else []


def _split(message: Message) -> Message:
    """The message with its `<image>` as parts; one whose parts name images themselves keeps its texts."""
    content = message["content"]
    if isinstance(content, str) and PLACE in content:
        return {**message, "content": list(_around(content))}
    if isinstance(content, list) and not any(map(_is_image, content)):
        return {**message, "content": [each for part in content for each in _around(part.get("text", ""))]}
    return message


def _around(text: str) -> Iterator[dict[str, Any]]:
    """A text's parts: what stands between the places, and the places."""
    for number, piece in enumerate(text.split(PLACE)):
        if number:
            yield dict(PART)
        if piece:
            yield {"type": "text", "text": piece}


def _before_the_question(messages: list[Message], count: int) -> list[Message]:
    at = next((index for index, message in enumerate(messages) if message["role"] == "user"), None)
    if at is None:
        raise BadRowError("has images and no question of the user")
    content = messages[at]["content"]
    text = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    asked: Message = {**messages[at], "content": [*(dict(PART) for _ in range(count)), *text]}
    return [*messages[:at], asked, *messages[at + 1 :]]


def _taken(message: Message, column: Iterator[Any], found: list[str], load: Load) -> Message:
    if not any(map(_is_image, _parts(message))):
        return message
    if message["role"] != "user":
        raise BadRowError(f"a message of the {message['role']} has an image, and only the user's can have one")
    made = []
    for part in _parts(message):
        if _is_image(part):
            found.append(load(next(column) if part == PART else _value(part)))
            part = dict(PART)
        made.append(part)
    return {**message, "content": made}


def _value(part: Mapping[str, Any]) -> Any:
    """What an image part names or holds."""
    names = _VALUES[part["type"]]
    given = [name for name in names if part.get(name)]
    unknown = [key for key in part if key not in (*names, "type", "detail")]
    if unknown or len(given) != 1:
        what = f"the unknown key {unknown[0]!r}" if unknown else f"{len(given)} of {', '.join(names)}, not one"
        raise BadRowError(f"an image part has {what}", 'Write {"type": "image", "image": "name.png"}.')
    value = part[given[0]]
    for each in (part, value if isinstance(value, Mapping) else {}):
        if each.get("detail") not in (None, "auto"):
            raise BadRowError(f"an image part has detail={each['detail']!r}, and an image is taken as it is")
    return f"data:;base64,{value}" if given[0] == "base64" else image_value(value, "an image part")


def image_value(value: Any, where: str) -> Any:
    """A path, a URL, or bytes; of a mapping, as the `datasets` library keeps an image, what it holds."""
    if isinstance(value, Mapping):
        if unknown := [key for key in value if key not in _KEYS]:
            raise BadRowError(f"{where} has the unknown key {unknown[0]!r}; an image has: bytes, path, url")
        value = value.get("bytes") or value.get("path") or value.get("url")
    if not isinstance(value, str | bytes) or not value:
        raise BadRowError(f"{where} has an image that is {kind(value)}, not a path, a URL or bytes")
    return value
