"""What training learns of a conversation, as token ids: the very prompt that a request asks, and the answer after it.

A turn is learned as `ids(prompt) + ids(answer)`: the prompt is rendered like a request's, the answer is what the
template writes from there to the turn's end. Turns share a sample as long as the tokens of the later prompt begin with
those of the turn before; where a template renders earlier turns otherwise, each further turn is a sample of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stages.models.chat_template import OPEN_THOUGHT, ChatTemplate
from stages.models.endpoint_form import RefusedRowError, template_tools, without_reasoning

NO_LOSS = -100
_THOUGHT_BLOCK = re.compile(r"<think>\s*</think>\s*")
_NO_THOUGHT = re.compile(r"\s*(?:<think>)?\s*</think>\s*")  # the start may be the request's end
_SWITCHES = ("enable_thinking", "thinking")  # variables that templates read
_TAKE_OTHER = "Set model.chat_template to a template that has it (chatml has), or remove it from the rows."


@dataclass(frozen=True)
class Sample:
    """A sequence to train on. labels: per token, its id where it is learned, else NO_LOSS. answer_at: where the last
    answer begins. trimmed: the template leaves out white space around an answer. num_images: of the row's images, how
    many of the first have their tokens in it."""

    ids: list[int]
    labels: list[int]
    answer_at: int
    trimmed: bool = False
    num_images: int = 0


@dataclass(frozen=True)
class Turn:
    """A learned answer: the text that is asked before it, and the text that is to be learned."""

    prompt: str
    answer: str
    trimmed: bool


def learned(
    template: ChatTemplate,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    *,
    reasoning: str = "learn",
    last_only: bool = False,
    on_prompt: bool = False,
) -> list[Sample]:
    """The samples of a conversation whose last message is the assistant's; none where no message is to be learned.

    reasoning: `learn`, or `strip`. last_only: of the assistant's messages that carry no `train` flag, only the last is
    learned. on_prompt: prompts carry loss as well.
    Raises RefusedRowError naming whatever of the conversation the template drops or changes.
    """
    if on_prompt and any(message.get("train") is False for message in messages):
        raise RefusedRowError(
            "a message of it is not to be learned, and train_on_prompt learns them all",
            "Remove the flag (train, weight, loss) from the rows, or set train.args.train_on_prompt=false.",
        )
    rendered_tools = template_tools(tools)
    shown = template.messages(without_reasoning(messages) if reasoning == "strip" else messages)
    wanted = [index for index, message in enumerate(messages) if is_learned(message, index, len(messages), last_only)]
    turns = [_turn(template, shown, index, rendered_tools) for index in wanted]
    _nothing_dropped(template, shown, rendered_tools)
    samples = list(_samples(template, turns))
    return [replace(each, labels=each.ids) for each in samples] if on_prompt else samples


def asked_ids(
    template: ChatTemplate, messages: Sequence[Mapping[str, Any]], tools: Any, *, reasoning: str = "learn"
) -> list[int]:
    """Token ids of a request that asks about the messages: what an engine is given to answer."""
    return template.prompt_ids(without_reasoning(messages) if reasoning == "strip" else messages, tools)


def is_learned(message: Mapping[str, Any], index: int, count: int, last_only: bool = False) -> bool:
    """Whether the message carries loss: the assistant's do, unless `train` or `last_only` say otherwise."""
    if message["role"] != "assistant":
        return False
    return bool(message.get("train", not last_only or index == count - 1))


def _samples(template: ChatTemplate, turns: list[Turn]) -> Iterator[Sample]:
    text, ids, labels, start, trimmed = "", [], [], 0, False  # type: ignore[var-annotated]
    for turn in turns:
        prompt = template.ids(turn.prompt)
        if text and not (turn.prompt.startswith(text) and prompt[: len(ids)] == ids):
            yield Sample(ids, labels, start, trimmed, template.num_images(text))
            ids, labels, trimmed = [], [], False
        answer = template.ids_after(turn.prompt, prompt, turn.answer)
        start = len(prompt)
        labels = labels + [NO_LOSS] * (start - len(ids)) + answer
        ids = prompt + answer
        text, trimmed = turn.prompt + turn.answer, trimmed or turn.trimmed
    if turns:
        yield Sample(ids, labels, start, trimmed, template.num_images(text))


def _turn(template: ChatTemplate, messages: list[dict[str, Any]], index: int, tools: Any) -> Turn:
    prompt = template.text(messages[:index], tools, ask=True)
    message = messages[index]
    whole = template.text(messages[: index + 1], tools, ask=False)
    if whole.startswith(prompt):
        answer = whole[len(prompt) :]
    else:
        answer = _after_other_start(template, messages, index, tools, prompt, whole)
    return Turn(prompt, answer, _check_answer(template, answer, message))


def _after_other_start(
    template: ChatTemplate, messages: list[dict[str, Any]], index: int, tools: Any, prompt: str, whole: str
) -> str:
    """The answer where a finished turn begins otherwise than a request ends, such as with no empty think block.

    Both begin with the conversation so far, and the request's start of an answer begins with the turn's.
    """
    before, message = template.text(messages[:index], tools, ask=False), messages[index]
    content = message["content"]
    if not (prompt.startswith(before) and whole.startswith(before)):
        before = _common_start(prompt, whole)
    turn, start = whole[len(before) :], prompt[len(before) :]
    at = turn.find(content if content in turn else content.strip()) if content.strip() else -1
    if at < 0 or not start.startswith(turn[:at]):
        raise RefusedRowError(
            f"the chat template writes a finished answer otherwise than it is asked for: a request ends in "
            f"{start[-60:]!r}, and the answer's turn is {turn[:60]!r}",
            "Set model.chat_template_kwargs (such as enable_thinking) so that both begin alike, or set "
            "model.chat_template.",
        )
    if not OPEN_THOUGHT.search(start):
        return turn[at:]
    if message.get("reasoning") is None:
        raise RefusedRowError(
            f"a request of this chat template ends inside a thought ({start[-30:]!r}), and the row's answer has none",
            "Give the rows reasoning_content, or set model.chat_template to a template without thinking.",
        )
    return f"{message['reasoning'].strip()}\n</think>\n\n{turn[at:]}"


def _common_start(one: str, other: str) -> str:
    length = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:length]


def _check_answer(template: ChatTemplate, answer: str, message: Mapping[str, Any]) -> bool:
    """Whether the template trims the answer. Raises RefusedRowError when it adds to it, or drops a part of it."""
    content, reasoning = message["content"], message.get("reasoning")
    at = 0
    if reasoning and reasoning.strip():
        at = answer.find(reasoning.strip())
        if at < 0:
            raise RefusedRowError(
                "the chat template does not write an answer's reasoning_content",
                "Set train.reasoning=strip to learn the answers alone, or set model.chat_template (chatml writes it).",
            )
        at += len(reasoning.strip())
    where = answer.find(content.strip(), at)
    if where < 0:
        raise RefusedRowError(
            f"the chat template drops or changes the answer {content.strip()[:60]!r}",
            "Set model.chat_template to a template that writes it as it is.",
        )
    calls = message.get("tool_calls") or []
    extra = answer[:where] if reasoning is None else _THOUGHT_BLOCK.sub("", answer[:where], count=1)
    if content.strip() and not (reasoning and reasoning.strip()) and extra.strip() and not template.drops(extra):
        raise RefusedRowError(*_added(template, extra))
    if not content.strip() and reasoning is None and (block := _NO_THOUGHT.match(answer)):
        raise RefusedRowError(*_added(template, block.group()))
    for call in calls:
        _check_call(answer[where:], call["function"])
    return not answer[where - _leading(content) :].startswith(content) if content.strip() else False


def _leading(content: str) -> int:
    return len(content) - len(content.lstrip())


def _added(template: ChatTemplate, extra: str) -> tuple[str, str]:
    shown = f"the chat template writes {extra!r} before the row's answer, which would be learned and is not in the row"
    if "think" in extra:
        switch = next((name for name in _SWITCHES if name in (template.variables or ())), None)
        way = (
            f"Set model.chat_template_kwargs.{switch}=false, which moves it into the prompt; where"
            if switch
            else "Where"
        )
        return shown, (
            f"{way} others have reasoning, give this one some, too, or write the empty block before its answer."
        )
    return shown, "Set model.chat_template_kwargs or model.chat_template so that the answer follows the prompt."


def _check_call(answer: str, function: Mapping[str, Any]) -> None:
    arguments = function["arguments"]
    if arguments and str(arguments) in answer and json.dumps(arguments, ensure_ascii=False) not in answer:
        raise RefusedRowError(
            f"the chat template writes the arguments of {function['name']!r} as Python does, {str(arguments)[:60]}, "
            "and not as JSON: it wants them as a text, and requests have them as an object",
            "Set model.chat_template to a template that writes them with `| tojson`.",
        )
    for text in (function["name"], *_leaves(function["arguments"])):
        if not _is_written(text, answer):
            raise RefusedRowError(f"the chat template drops the tool call {function['name']!r}", _TAKE_OTHER)


def _is_written(text: str, where: str) -> bool:
    """Whether the text is there as it is, or as JSON has it."""
    ways = (text, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1])
    return any(each in where for each in ways)


def _leaves(value: Any) -> Iterator[str]:
    """The texts of the arguments, names included; other values may be written in several ways."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)


def _nothing_dropped(template: ChatTemplate, messages: list[dict[str, Any]], tools: Any) -> None:
    """Raises RefusedRowError for a message, a name or tools that are nowhere in the rendered conversation."""
    text = template.text(messages, tools, ask=False)
    for number, message in enumerate(messages, 1):
        texts = [part.get("text", "") for part in message.get("parts", ())] or [message["content"]]
        for content in map(str.strip, texts):
            # a tool's result is written as JSON by Llama 3's templates, among others
            if content and not (_is_written(content, text) if message["role"] == "tool" else content in text):
                raise RefusedRowError(
                    f"the chat template drops or changes message {number}, the {message['role']}'s: {content[:60]!r}",
                    "Set model.chat_template, or change the rows.",
                )
    named = [message["name"] for message in messages if message.get("name") and message["role"] != "tool"]
    if dropped := [name for name in named if name not in text]:
        raise RefusedRowError(
            f"the chat template drops the name {dropped[0]!r} of a message",
            "Leave the names out by dataset.ignore_keys=[name], or set model.chat_template to one that writes them.",
        )
    for tool in tools or []:
        if tool["function"]["name"] not in text or text == template.text(messages, None, ask=False):
            raise RefusedRowError(f"the chat template drops the tool {tool['function']['name']!r}", _TAKE_OTHER)
    calls = [call for message in messages for call in message.get("tool_calls") or []]
    for call in calls:
        _check_call(text, call["function"])
