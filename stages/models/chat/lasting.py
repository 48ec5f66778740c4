"""Prompts that are the same another time: what training learns is asked later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from datetime import datetime
from typing import TYPE_CHECKING, Any

from stages.models.endpoint_form import RefusedRowError, template_tools

if TYPE_CHECKING:
    from stages.models.chat_template import ChatTemplate

_OTHER_DAY = datetime(2001, 2, 3)
_CHANGING = ("strftime_now", "random", "lipsum")  # what a template can make of something else than its variables
_SYSTEM = {"role": "system", "content": "Be brief."}


def require_lasting(template: ChatTemplate, messages: Sequence[Mapping[str, Any]], tools: Any) -> None:
    """Raise RefusedRowError where a request with these messages and tools is another one on another day, or each time,
    and where the template refuses them."""
    rendered = template_tools(tools)
    if not any(word in template.source(rendered) for word in _CHANGING):
        return
    if _asked(template, messages, rendered) != _asked(template, messages, rendered):
        raise RefusedRowError(
            "the chat template draws a part of the prompt at random, so requests differ from training",
            "Set model.chat_template to a template without it.",
        )
    if _is_dated(template, messages, rendered):
        raise RefusedRowError(
            "the chat template writes today's date into the prompt, so requests of another day differ from training",
            _hint(template, messages, rendered),
        )


def _hint(template: ChatTemplate, messages: Sequence[Mapping[str, Any]], tools: Any) -> str:
    if "date_string" in (template.variables or ()):
        return "Give the date a fixed value, such as model.chat_template_kwargs.date_string='26 Jul 2024'."
    if messages[0]["role"] != "system" and not _is_dated(template, [_SYSTEM, *messages], tools):
        return (
            "Give the rows a system message (dataset.prompt.system), which takes the place of the template's, or set "
            "model.chat_template."
        )
    return "Set model.chat_template to a template without the date."


def _is_dated(template: ChatTemplate, messages: Sequence[Mapping[str, Any]], tools: Any) -> bool:
    dated = copy(template)
    dated.kwargs = {**template.kwargs, "strftime_now": _OTHER_DAY.strftime}
    try:
        return _asked(template, messages, tools) != _asked(dated, messages, tools)
    except RefusedRowError:
        return True


def _asked(template: ChatTemplate, messages: Sequence[Mapping[str, Any]], tools: Any) -> str:
    return template.text(template.messages(messages), tools, ask=True)
