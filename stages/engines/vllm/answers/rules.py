"""Rules about the parsers of tool calls and reasoning: that there is one where it is needed, and that it fits."""

from __future__ import annotations

from collections.abc import Iterator

from runner.errors import Problem, nearest
from stages.data.sample import first_example
from stages.engines.vllm.answers.families import REASONING, TOOLS, parsers_for
from stages.engines.vllm.mappings import VLLM
from stages.models.chat.template_here import template_here
from stages.sections.recipe import Recipe

_TABLES = {"tool_parser": ("tool_parsers", TOOLS), "reasoning_parser": ("reasoning_parsers", REASONING)}

_NO_TOOLS = "For a model that has none: model.chat_template=chatml and model.tool_parser=hermes."


def parsers_fit_the_template(recipe: Recipe) -> Iterator[Problem]:
    for name, (listed, table) in _TABLES.items():
        chosen = getattr(recipe.model, name)
        if chosen is None:
            continue
        known, fitting = VLLM.content[listed], parsers_for(table, template_here(recipe), recipe.model.source)
        if chosen not in known:
            guess = nearest(chosen, known)
            hint = f"Did you mean {guess}?" if guess else f"There are: {', '.join(known)}."
            yield Problem(f"model.{name}", chosen, f"is not a parser of {VLLM.versioned}", hint)
        elif fitting and chosen not in fitting:
            message = "does not read what this model's chat template writes"
            yield Problem(f"model.{name}", chosen, message, f"Set model.{name}={' or '.join(fitting)}.")


def rows_with_tools_have_a_parser(recipe: Recipe) -> Iterator[Problem]:
    """Where the first row can be seen here; ingest looks at all others."""
    if recipe.model.tool_parser is not None or not {"infer", "serve"} & set(recipe.pipeline):
        return
    for split in ("test", "train"):
        example = first_example(recipe, split)
        if example is not None and example.tools:
            fitting = parsers_for(TOOLS, template_here(recipe), recipe.model.source)
            others = f"the parser of the model's family, one of {', '.join(VLLM.content['tool_parsers'])}"
            hint = (
                f"Set model.tool_parser={' or '.join(fitting)}." if fitting else f"{_NO_TOOLS} Or set it to {others}."
            )
            message = f"is not set, and the {split} rows have tools, whose calls have to be read in the answers"
            yield Problem("model.tool_parser", None, message, hint)
            return


RULES = (parsers_fit_the_template, rows_with_tools_have_a_parser)
