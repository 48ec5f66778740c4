"""What a chat template raises, in the words of the rows and the recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runner.errors import RunnerError
from stages.models.endpoint_form import RefusedRowError

_ABOUT_IDS = "call ID"  # in the words of templates that ask for ids of a form


def refusal(error: Exception, messages: Sequence[Mapping[str, Any]]) -> RunnerError:
    """The error to raise for one of a template that was given the messages: RefusedRowError, unless no row can help."""
    import jinja2

    if isinstance(error, jinja2.TemplateSyntaxError):
        return RunnerError(
            f"the chat template is not valid Jinja: {error.message} (line {error.lineno})",
            "Correct it, or set model.chat_template.",
        )
    if isinstance(error, jinja2.UndefinedError | jinja2.exceptions.SecurityError):
        return RefusedRowError(
            f"the chat template fails: {error}",
            "Set model.chat_template to one without it, or the variable in model.chat_template_kwargs.",
        )
    if isinstance(error, jinja2.TemplateError):
        return _own_words(str(error), messages)
    why = f"the chat template fails on the row: {type(error).__name__}: {error}"
    if isinstance(error, TypeError) and "dict" in str(error) and any(each.get("tool_calls") for each in messages):
        return RefusedRowError(
            f"{why}: it wants the arguments of calls as a text, and requests have them as an object",
            "Set model.chat_template to a template that writes them with `| tojson`.",
        )
    return RefusedRowError(why, "Set model.chat_template.")


def _own_words(words: str, messages: Sequence[Mapping[str, Any]]) -> RefusedRowError:
    """For an error that the template raises by itself."""
    if any(message["role"] == "system" for message in messages) and "system" in words.lower():
        return RefusedRowError(
            f"the chat template takes no system message: {words!r}",
            "Set dataset.prompt.system=null and put its text into dataset.prompt.user, or set model.chat_template.",
        )
    ids = " Or leave out the ids of calls by dataset.ignore_keys=[id, tool_call_id]." if _ABOUT_IDS in words else ""
    return RefusedRowError(
        f"the chat template refuses the conversation: {words!r}",
        f"Its turns are {', '.join(message['role'] for message in messages)}. Correct the rows, or set "
        f"model.chat_template.{ids}",
    )
