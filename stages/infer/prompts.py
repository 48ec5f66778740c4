"""Rows as the token ids that an engine is asked, rendered in a copy of the process that has limits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from stages.data.example import Example
from stages.models.chat.end_of_turn import Stop
from stages.models.chat_template import ChatTemplate
from stages.models.endpoint_form import RefusedRowError
from stages.models.learned import asked_ids
from stages.models.time_limit import MAKERS_CODE, standing


class Prompts:
    """What a model's chat template and tokenizer make of rows. reasoning: `train.reasoning`."""

    def __init__(self, template: ChatTemplate, reasoning: str) -> None:
        self._template, self._reasoning = template, reasoning
        self._made = standing(self._make)

    def of(self, rows: Sequence[tuple[int, str]]) -> dict[int, dict[str, Any]]:
        """The rows' parts of their requests (`prompt_of`), by their indices. rows: index and text of each.

        Raises RunnerError naming the rows when one takes too long or too much memory.
        """
        if not rows:
            return {}
        what = f"{MAKERS_CODE} on rows {rows[0][0] + 1:,} to {rows[-1][0] + 1:,} of the test set"
        made = self._made([text for _, text in rows], what, None)
        return {index: prompt for (index, _), prompt in zip(rows, made, strict=True)}

    @cached_property
    def stop(self) -> Stop:
        """What ends an answer, besides the tokenizer's own end."""
        token_ids, texts = self._made(None, MAKERS_CODE, None)
        return Stop(tuple(token_ids), tuple(texts))

    def _make(self, texts: list[str] | None) -> list[Any]:
        if texts is None:
            return [self._template.stop.token_ids, self._template.stop.texts]
        return [prompt_of(text, self._template, self._reasoning) for text in texts]


def prompt_of(text: str, template: ChatTemplate, reasoning: str) -> dict[str, Any]:
    """The row's part of a request (`stages.engines.work.Work`): its tokens, or why the template does not take it.

    The tokens are those that the endpoint makes of the same messages: the chat template's, and nothing around them.
    num_learned_tokens: how many there are with those of the images, whose places the engine fills by itself.
    """
    example, tokens, learned, error = Example.from_json(text), list[int](), None, ""
    try:
        tokens = asked_ids(template, example.prompt, example.tools, reasoning=reasoning)
        if example.images and template.vision is not None:
            seeing = template.seeing(example.images)
            learned = len(asked_ids(seeing, example.prompt, example.tools, reasoning=reasoning))
    except RefusedRowError as cause:
        error = cause.message
    return {"tokenized_prompt": tokens, "num_learned_tokens": learned, "__inference_error__": error}
