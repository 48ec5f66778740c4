"""How long the rows are, in tokens, and the limits that follow from it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from stages.data.answer import answer_text, calls_of
from stages.data.example import Example, Message, text_of
from stages.models import gguf
from stages.models import obtain as models
from stages.models.endpoint_form import with_thought
from stages.models.time_limit import LOADED, USED, within
from stages.sections.model import is_local

BYTES_PER_TOKEN = 3
"""Of text in general, rather too few than too many: English has about four."""
ROW_TOKENS, MESSAGE_TOKENS = 32, 8  # of the chat template: the default system message, and around each message
TOOLS_TOKENS = 192  # of what templates write around tools
_ANSWER_END, _MOST_ANSWER = 8, 1024
_BLOCK = 32
_AT_ONCE = 2000
_TOKENIZER = "the model's tokenizer"


@dataclass(frozen=True)
class Lengths:
    """Tokens of each row and of each answer. exact: counted by the model's tokenizer, not estimated from bytes."""

    rows: list[int]
    answers: list[int]
    exact: bool


@dataclass(frozen=True)
class Limits:
    """`cutoff_len` and `max_tokens`. num_over: rows longer than cutoff_len. longest: of the rows."""

    cutoff_len: int
    max_tokens: int
    num_over: int
    longest: int
    p50: int
    p99: int


def tokenizer_of(source: str, cache: Path) -> Any:
    """The tokenizer of a model that is on this machine (`tokenizers.Tokenizer`); None for one that is not.

    Raises RunnerError for one that does not load, or not within limits.
    """
    if not is_here(source):
        return None
    try:
        file = models.obtain_tokenizer(source, None, cache) / "tokenizer.json"
    except RunnerError:
        return None
    if not file.is_file():
        return None
    import tokenizers  # noqa: F401  # here, so that the copy of this process does not import it

    def load() -> None:
        _loaded(file)

    within(None, _TOKENIZER, load)  # what has loaded once within the limits does so again
    return _loaded(file)


def _loaded(file: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        with LOADED:
            return Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises nothing more precise
        raise RunnerError(f"the tokenizer in {file} does not load: {error}", "Look at model=.") from error


def is_here(source: str) -> bool:
    """Whether a model is in a package that is installed, or in a folder: nothing has to be downloaded."""
    if is_local(source):
        return True
    if not source.startswith("package://"):
        return False
    name = source.removeprefix("package://").partition("/")[0]
    return gguf.installed_version(name, gguf.ENVIRONMENT) is not None


class Counter:
    """Collects the texts' lengths of examples, one after the other."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._rows: list[int] = []
        self._answers: list[int] = []
        self._waiting: list[Example] = []

    def add(self, example: Example) -> None:
        """Count the example's prompt and its longest answer."""
        self._waiting.append(example)
        if len(self._waiting) >= _AT_ONCE:
            self._count()

    def _count(self) -> None:
        """Count those that wait, by a tokenizer with limits on its time and memory."""
        waiting, self._waiting = self._waiting, []

        def counted() -> list[tuple[int, int | None]]:
            return [self._counted(example) for example in waiting]

        found = within(None, _TOKENIZER, counted) if self._tokenizer is not None else counted()
        self._rows += [row for row, _ in found]
        self._answers += [answer for _, answer in found if answer is not None]

    def _counted(self, example: Example) -> tuple[int, int | None]:
        """Tokens of the row, and of its longest answer; None where it is a text alone."""
        if example.text is not None:
            return self.tokens(example.text), None
        asked = sum(self._message(each) + MESSAGE_TOKENS for each in example.prompt) + self._tools(example)
        default = 0 if any(each["role"] == "system" for each in example.prompt) else ROW_TOKENS
        answers = [each[-1] for each in (example.chosen, example.rejected, [example.answer]) if each and each[-1]]
        answer = max(map(self._message, answers), default=0)
        turns = [self._message(each) for each in example.prompt if each["role"] == "assistant"]
        longest = max([answer, *turns])  # the endpoint is asked for each of them
        return asked + answer + MESSAGE_TOKENS + default, longest

    def _message(self, message: Message) -> int:
        """Of its reasoning, its text and its calls."""
        text = answer_text(text_of(message), calls_of(message))
        return self.tokens(with_thought(text, message.get("reasoning_content")))

    def _tools(self, example: Example) -> int:
        return self.tokens(json.dumps(example.tools)) + TOOLS_TOKENS if example.tools else 0

    def tokens(self, text: str) -> int:
        """Tokens of the text, or an estimate from its bytes."""
        if self._tokenizer is not None:
            with USED:
                return len(self._tokenizer.encode(text, add_special_tokens=False).ids)
        return math.ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN)

    @property
    def found(self) -> Lengths:
        self._count()
        return Lengths(self._rows, self._answers, self._tokenizer is not None)


def limits_of(lengths: Lengths, most_tokens: int, extra: int = 0) -> Limits:
    """Limits that hold every row, as far as most_tokens allows. extra: tokens that each row has besides."""
    rows, answers = [length + extra for length in sorted(lengths.rows)] or [1], sorted(lengths.answers) or [0]
    cutoff = min(up(rows[-1], _BLOCK), most_tokens)
    answer = min(up(answers[-1] + _ANSWER_END, 8), _MOST_ANSWER)
    over = sum(length > cutoff for length in rows)
    return Limits(cutoff, answer, over, rows[-1], percentile(rows, 50), percentile(rows, 99))


def up(number: int, step: int) -> int:
    """The next multiple of the step."""
    return max(step, -(-number // step) * step)


def percentile(ordered: Sequence[int], percent: int) -> int:
    """The value below which that many percent of the ordered values lie."""
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
