"""`Example`: what ingest makes of a row, and all that later stages read of the dataset. One JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from runner.errors import RunnerError
from runner.text import count_text
from stages.data.answer import answer_text, calls_of

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")


class BadRowError(Exception):
    """A row that cannot be used. `why`: the kind, the same for every such row. `fix`: what to do about it."""

    def __init__(self, why: str, fix: str = "") -> None:
        super().__init__(why)
        self.why, self.fix = why, fix


# What str.isspace counts, and characters that show nothing: soft hyphen, zero-width ones, marks of direction, BOM.
_BLANK = "".join(each for each in map(chr, range(0x3001)) if each.isspace())
_BLANK += "\u00ad\u180e\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"


def is_blank(text: str) -> bool:
    """Whether a text has nothing that can be seen."""
    return not text.strip(_BLANK)


def trimmed(text: str) -> str:
    """The text without what cannot be seen at its ends."""
    return text.strip(_BLANK)


class Message(TypedDict):
    """One message. `content`: text, or a list of parts `{type, text | image | ...}`, or None where it only calls tools.

    `train`: whether training learns it; without it the training method decides. A `weight` of 0 or 1 becomes this.
    """

    role: Role
    content: str | list[dict[str, Any]] | None
    name: NotRequired[str]
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[str]
    reasoning_content: NotRequired[str]
    train: NotRequired[bool]


@dataclass(frozen=True)
class Example:
    """A row as a conversation, a text, or a pair of answers.

    messages: `[system?, user, assistant, ...]`, the answer to learn last. With chosen and rejected: the prompt alone.
    label: of KTO, whether the answer is a good one. text: of pretraining, and then there are no messages.
    columns: the row as it was read. source: "file:line", or "split:number" of generated rows.
    """

    id: str
    messages: list[Message] = field(default_factory=list)
    chosen: list[Message] | None = None
    rejected: list[Message] | None = None
    label: bool | None = None
    text: str | None = None
    tools: list[dict[str, Any]] | None = None
    images: list[str] | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    source: str = ""

    @property
    def prompt(self) -> list[Message]:
        """The messages to ask: everything before the answer."""
        if self.messages and self.chosen is None and self.messages[-1]["role"] == "assistant":
            return self.messages[:-1]
        return self.messages

    @property
    def answer(self) -> Message | None:
        """The assistant's last message: what to learn, and what a prediction is scored against."""
        last = (self.messages if self.chosen is None else self.chosen)[-1:]
        return last[0] if last and last[0]["role"] == "assistant" else None

    @property
    def reference(self) -> str:
        """The answer's text, with its calls (`answer_text`); "" without an answer or without text in it."""
        answer = self.answer
        if answer is None:
            return ""
        content = answer["content"]
        if type(content) is str and "tool_calls" not in answer:
            return content
        return answer_text(text_of(answer), calls_of(answer))

    def to_json(self) -> str:
        """One line, without fields that are not set. Raises ValueError for infinite numbers outside of the columns."""
        line = f'{{"id": {quoted(self.id)}'
        if self.messages:
            line += f', "messages": [{_messages(self.messages)}]'
        if self.chosen:
            line += f', "chosen": [{_messages(self.chosen)}]'
        if self.rejected:
            line += f', "rejected": [{_messages(self.rejected)}]'
        others = (("label", self.label), ("text", self.text), ("tools", self.tools), ("images", self.images))
        for name, value in others:
            if value is not None and value != []:
                line += f', "{name}": {_encode(value)}'
        return without_line_ends(f'{line}, "columns": {columns_json(self.columns)}, "source": {quoted(self.source)}}}')

    @classmethod
    def from_json(cls, line: str | bytes) -> Example:
        """The example of a line that `to_json` wrote."""
        return cls(**json.loads(line))


def _plain(value: Any) -> str:
    """A value of a column that JSON does not have."""
    return f"({count_text(len(value), 'byte')})" if isinstance(value, bytes) else str(value)


quoted = json.encoder.encode_basestring
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_plain).encode


def _messages(messages: Iterable[Message]) -> str:
    return ", ".join(
        [
            f'{{"role": "{each["role"]}", "content": {quoted(content)}}}'
            if type(content := each["content"]) is str and len(each) == 2
            else _encode(each)
            for each in messages
        ]
    )


def columns_json(columns: Mapping[str, Any]) -> str:
    """The columns as JSON, infinite numbers as text."""
    try:
        return _encode(columns) if columns else "{}"
    except ValueError:
        return _encode(_finite(columns))


def _finite(value: Any) -> Any:
    """The value with infinite numbers as text."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return str(value) if isinstance(value, float) and value - value != 0 else value


_LINE_ENDS = {"\u2028": "\\u2028", "\u2029": "\\u2029", "\x85": "\\u0085"}


def one_line(value: Mapping[str, Any]) -> str:
    """The value as JSON in which no reader finds a line's end, whatever it counts as one."""
    return without_line_ends(_encode(value))


def without_line_ends(line: str) -> str:
    """The JSON with escapes for what some readers count as a line's end."""
    if not line.isascii():
        for end, escaped in _LINE_ENDS.items():
            line = line.replace(end, escaped)
    return line


def text_of(message: Message) -> str:
    """The message's text: its content, or its text parts one after the other."""
    content = message["content"]
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part.get("type") == "text")
    return content or ""


def write_examples(path: Path, examples: Iterable[Example]) -> int:
    """Write one example a line. Returns how many."""
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for count, example in enumerate(examples, 1):  # noqa: B007
            file.write(f"{example.to_json()}\n")
    return count


def read_examples(path: Path) -> Iterator[Example]:
    """The examples of a file that ingest wrote, one at a time. Raises RunnerError for a line that is not one."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield Example.from_json(line)
            except (ValueError, TypeError) as error:
                raise RunnerError(
                    f"{path}:{number} is not an example that ingest wrote", "Run ingest again: force=[ingest]."
                ) from error
