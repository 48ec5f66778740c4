"""Rows whose answers no stage of the recipe would read, such as tools without a parser: refused before training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.errors import RunnerError
from stages.data.example import Example, Message, text_of
from stages.models.endpoint_form import strip_thought

if TYPE_CHECKING:
    from stages.sections.recipe import Recipe

_ASKING = ("infer", "serve")


def check_needed(recipe: Recipe, example: Example) -> None:
    """Raise RunnerError where the example has tools or reasoning that no parser of the recipe reads."""
    if not set(_ASKING) & set(recipe.pipeline):
        return
    where, answer = example.source or example.id, example.answer
    if example.tools and recipe.model.tool_parser is None:
        raise RunnerError(
            f"{where}: the row has tools, and model.tool_parser names no parser of the calls in answers",
            "Set model.tool_parser to the parser of the model's family, such as hermes.",
        )
    if answer and answer.get("tool_calls") and not example.tools:
        name = answer["tool_calls"][0]["function"]["name"]
        raise RunnerError(
            f"{where}: the answer calls {name!r} and the row has no tools, so no request could get this call",
            "Give the rows a column `tools`.",
        )
    if _serves_what_is_not_scored(recipe) and answer is not None and has_reasoning(answer):
        raise RunnerError(
            f"{where}: the answer has reasoning, which is scored without it and would be served with it",
            "Set model.reasoning_parser to the parser of the model's family, or evaluate.reasoning=keep.",
        )


def _serves_what_is_not_scored(recipe: Recipe) -> bool:
    """Whether reasoning is learned, left out of the scored text, and yet given to clients within it."""
    learned = "train" in recipe.pipeline and recipe.train.reasoning == "learn"
    strips = "serve" in recipe.pipeline and recipe.evaluate.reasoning == "strip"
    return learned and strips and recipe.model.reasoning_parser is None


def has_reasoning(answer: Message) -> bool:
    """Whether an answer has reasoning, in a key of its own or before its text."""
    return bool(answer.get("reasoning_content")) or strip_thought(text_of(answer)) != text_of(answer)
