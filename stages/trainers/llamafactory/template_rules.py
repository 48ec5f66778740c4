"""Rules about the chat template: can it be read, and do the keys around it agree?"""

from __future__ import annotations

from collections.abc import Iterator

from runner.errors import Problem, RunnerError, nearest
from runner.recipe.schema import Recipe
from stages.models.chat_template import template_text
from stages.trainers.llamafactory.mappings import LLAMAFACTORY

_OWN_KWARGS = ("messages", "tools", "documents", "add_generation_prompt", "tokenize", "chat_template")


def named_template_is_known(recipe: Recipe) -> Iterator[Problem]:
    template, known = recipe.model.template, LLAMAFACTORY.content["templates"]
    if template is None or template in known:
        return
    guess = nearest(template, known)
    message = f"is none of the {len(known)} templates of {LLAMAFACTORY.versioned}"
    hint = f"Did you mean {guess}?" if guess else f"There are: {', '.join(known)}."
    yield Problem("model.template", template, message, hint)


def chat_template_can_be_read(recipe: Recipe) -> Iterator[Problem]:
    try:
        template_text(recipe.model.chat_template)
    except RunnerError as error:
        yield Problem("model.chat_template", recipe.model.chat_template, "cannot be read", error.hint)
    for name in _OWN_KWARGS:
        if name in recipe.model.chat_template_kwargs:
            value = recipe.model.chat_template_kwargs[name]
            yield Problem(f"model.chat_template_kwargs.{name}", value, "is set for each request", "Remove it.")


def evaluation_rows_are_a_split(recipe: Recipe) -> Iterator[Problem]:
    wanted = recipe.train.args.get("eval_dataset")
    if wanted not in (None, "val"):
        message = "is no split to evaluate on during training; there is: val"
        yield Problem("train.args.eval_dataset", wanted, message, "Set train.args.eval_dataset=val.")


RULES = (named_template_is_known, chat_template_can_be_read, evaluation_rows_are_a_split)
