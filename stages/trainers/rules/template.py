"""Rules about the chat template and the rows to evaluate on."""

from __future__ import annotations

from collections.abc import Iterator

from runner.errors import Problem, RunnerError
from stages.models.chat_template import template_text
from stages.sections.recipe import Recipe

_OWN_KWARGS = ("messages", "tools", "documents", "add_generation_prompt", "tokenize", "chat_template")


def chat_template_can_be_read(recipe: Recipe) -> Iterator[Problem]:
    chosen = recipe.model.chat_template
    try:
        template_text(chosen)
    except RunnerError as error:
        why = error.message.removeprefix(f"model.chat_template={chosen} ")
        yield Problem("model.chat_template", chosen, why, error.hint)
    for name, value in recipe.model.chat_template_kwargs.items():
        if isinstance(value, str) and value.lower() in ("true", "false"):
            key, meant = f"model.chat_template_kwargs.{name}", value.lower()
            yield Problem(
                key, value, f"is a text, which no template takes for {meant}", f"Write {meant} without quotes."
            )
    for name in _OWN_KWARGS:
        if name in recipe.model.chat_template_kwargs:
            value = recipe.model.chat_template_kwargs[name]
            yield Problem(f"model.chat_template_kwargs.{name}", value, "is set for each request", "Remove it.")


def evaluation_rows_are_a_split(recipe: Recipe) -> Iterator[Problem]:
    wanted = recipe.train.args.get("eval_dataset")
    if wanted not in (None, "val"):
        message = "is not a split to evaluate on during training; there is: val"
        yield Problem("train.args.eval_dataset", wanted, message, "Set train.args.eval_dataset=val.")


RULES = (chat_template_can_be_read, evaluation_rows_are_a_split)
