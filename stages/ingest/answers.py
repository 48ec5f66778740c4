"""Can the answers that are learned be read back? Proven before training, on the user's own rows and tokenizer.

The tokens of a row's answer are turned into text as the engine does it, and read by the parsers that the recipe names.
What a client of the endpoint would receive, at once or token by token, must be the row's answer: content, calls and
reasoning.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import RunnerError
from stages.data.answer import Answer, calls_of
from stages.data.example import Example
from stages.engines.base import load_engine
from stages.engines.work import Answers
from stages.ingest.parity import sample_of
from stages.models.chat_template import ChatTemplate
from stages.models.endpoint_form import RefusedRowError, strip_thought, template_messages, without_reasoning
from stages.models.learned import Sample, learned

if TYPE_CHECKING:
    from stages.sections.recipe import Recipe

_WHOLE, _STREAMED = "read", "streamed, and read"
_HINTS = {
    _WHOLE: "Name the parser that reads what the chat template writes, or set model.chat_template.",
    _STREAMED: "Name another parser that reads what the chat template writes. Of a parser that takes an answer without "
    "reasoning for reasoning, leave such rows out, or leave serve out of the pipeline.",
}


def needs_reading(recipe: Recipe) -> bool:
    """Whether the recipe asks a model for answers that a parser reads."""
    named = recipe.model.tool_parser is not None or recipe.model.reasoning_parser is not None
    return named and bool({"infer", "serve"} & set(recipe.pipeline)) and recipe.train.stage != "pt"


def check_answers(recipe: Recipe, model: str, paths: Iterable[str]) -> int:
    """Read sampled answers of the files back, as a task of its own; how many. Raises RunnerError at the first that is
    read otherwise.

    model: folder of the model. paths: files of examples. Imports the engine's library.
    """
    template = ChatTemplate.of(recipe, model)
    answers, count = load_engine(recipe).answers(recipe.model, template), 0
    for path in paths:
        for example in sample_of(Path(path), recipe.seed):
            for messages in _answered(example):
                check_one(recipe, template, answers, example, messages)
                count += 1
    return count


def _answered(example: Example) -> Iterable[list]:  # type: ignore[type-arg]
    """The conversations of the example that end with an answer."""
    if example.chosen is not None:
        return [[*example.messages, *each] for each in (example.chosen, example.rejected or []) if each]
    return [example.messages] if example.answer is not None else []


def check_one(recipe: Recipe, template: ChatTemplate, answers: Answers, example: Example, messages: list) -> None:  # type: ignore[type-arg]
    """Read one answer back. Raises RunnerError when it is not what the row has."""
    where = example.source or example.id
    asked = without_reasoning(messages) if recipe.train.reasoning == "strip" else messages
    asked = [{key: value for key, value in each.items() if key != "train"} for each in asked]  # the last one is read
    try:
        last = learned(template, asked, example.tools, last_only=True)[-1:]
        (message,) = template_messages(asked[-1:], split_thoughts=True)  # a `<think>` block is read as reasoning
    except RefusedRowError as error:
        raise RunnerError(f"{where}: {error.message}", error.hint) from error
    expected = Answer(message["content"], calls_of(message), message.get("reasoning"))
    for sample in last:
        ids, skips = without_end(template, sample), _skips_special(answers, example)
        text = _text(template, ids, skip_special=skips)
        _compare(recipe, where, expected, answers.read(text, example.tools), _WHOLE)
        if "serve" in recipe.pipeline and not template.stop.texts:
            asked_for = sample.ids[: sample.answer_at]
            streamed = answers.read_streamed(asked_for, ids, example.tools, skip_special=skips)
            _compare(recipe, where, expected, streamed, _STREAMED)


def without_end(template: ChatTemplate, sample: Sample) -> list[int]:
    """The answer's tokens to the end of the turn, which is left out."""
    ids, ends = sample.ids[sample.answer_at :], {template.tokenizer.eos_token_id, *template.stop.token_ids}
    return ids[: next((at for at, token in enumerate(ids) if token in ends), len(ids))]


def _skips_special(answers: Answers, example: Example) -> bool:
    """Whether the engine leaves special tokens out of the answer's text."""
    return bool(answers.sampling({}, example.tools).get("skip_special_tokens", True))


def _text(template: ChatTemplate, ids: list[int], *, skip_special: bool) -> str:
    """The tokens' text as the engine gives it."""
    text = str(template.tokenizer.decode(ids, skip_special_tokens=skip_special))
    for end in template.stop.texts:
        text = text.partition(end)[0]
    return text


def _compare(recipe: Recipe, where: str, expected: Answer, found: Answer, how: str) -> None:
    """Raise RunnerError where they differ. how: the answer was received."""
    parsers = {"tool_parser": recipe.model.tool_parser, "reasoning_parser": recipe.model.reasoning_parser}
    named = " and ".join(f"model.{key}={name}" for key, name in parsers.items() if name is not None)
    thought = (expected.reasoning or "").strip() if recipe.model.reasoning_parser else ""
    pairs = [
        ("calls", expected.calls, found.calls),
        ("content", expected.content.strip(), strip_thought(found.content).strip()),
        ("reasoning", thought, (found.reasoning or "").strip()),
    ]
    for name, wanted, read in pairs:
        if wanted != read:
            raise RunnerError(
                f"{where}: {how} by {named}, the {name} of the row's answer would be {read!r} and not {wanted!r}",
                _HINTS[how],
            )
