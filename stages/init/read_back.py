"""What answers have besides text, and the keys of a recipe by which it is learned, read and scored."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from stages.data.example import Example
from stages.ingest.parsers_needed import has_reasoning
from stages.init.target import usual_engine

CALLS = "calls"  # of tools, in an answer that is scored
PARTS: dict[str, Callable[[Example], bool]] = {
    "tool_parser": lambda example: bool(example.tools),
    "reasoning_parser": lambda example: example.answer is not None and has_reasoning(example.answer),
    CALLS: lambda example: example.answer is not None and bool(example.answer.get("tool_calls")),
    "chat_template": lambda example: example.answer is not None and bool(example.answer.get("reasoning_content")),
}
"""Keys of `model`, and which rows need them; and CALLS."""


@dataclass(frozen=True)
class Keys:
    """Keys of three sections of a recipe, and their values. remarks: what is missing, for the person."""

    model: dict[str, str] = field(default_factory=dict)
    train: dict[str, str] = field(default_factory=dict)
    evaluate: dict[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def keys_for(parts: Collection[str], model: str, *, chatml: bool = False) -> Keys:
    """Of the model's family, as far as the rows need them. parts: of `PARTS`. model: `model.source`.

    chatml: whether the model writes conversations in ChatML. One of no known family gets the template `chatml` for
    tools, and the parser of its calls.
    """
    usual = usual_engine().parsers(model) if parts else {}
    found = {name: value for name, value in usual.items() if name in parts}
    if "tool_parser" in parts and "tool_parser" not in found and chatml:
        found |= {"chat_template": "chatml", "tool_parser": "hermes"}
    if "reasoning_parser" not in parts or "reasoning_parser" in found:
        return Keys(found)
    unknown = f"the answers have reasoning, and no reasoning parser is known for {model}: "
    if "chat_template" in parts:
        how = "set model.reasoning_parser, and a model.chat_template that writes it, to learn it"
        return Keys(found, train={"reasoning": "strip"}, remarks=(f"{unknown}it is not learned; {how}",))
    how = "set model.reasoning_parser to score the answers alone"
    return Keys(found, evaluate={"reasoning": "keep"}, remarks=(f"{unknown}it is scored with the answers; {how}",))
