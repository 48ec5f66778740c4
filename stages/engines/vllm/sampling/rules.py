"""Rules of how answers are sampled, beyond the names and values of single parameters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress

from runner.errors import Problem
from stages.engines.vllm.mappings import VLLM
from stages.engines.vllm.sampling.effect import Engine, without_effect
from stages.engines.vllm.sampling.values import UNREAD, wrong_contents
from stages.sections.recipe import Recipe

_KEY = "infer.sampling.structured_outputs"
# Of these exactly one: vLLM's StructuredOutputsParams.__post_init__.
_FORMS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
_ENGINE_KEY = "infer.engine_kwargs.structured_outputs_config"


def an_answer_is_one_text(recipe: Recipe) -> Iterator[Problem]:
    """Metrics compare one text a row, and so do the predictions' files."""
    sampling = recipe.infer.sampling
    if isinstance(sampling.get("n"), int) and sampling["n"] > 1:
        message = "asks for several answers to a row, of which only one can be scored"
        yield Problem("infer.sampling.n", sampling["n"], message, "Remove it.")
    if sampling.get("detokenize") is False:
        yield Problem("infer.sampling.detokenize", False, "leaves the answers without text", "Remove it.")
    if sampling.get("ignore_eos") and "evaluate" in recipe.pipeline:
        message = "has no answer end before max_tokens, and evaluate scores them"
        yield Problem("infer.sampling.ignore_eos", True, message, "Remove it, or leave evaluate out of the pipeline.")
    if (forced := sampling.get("trace_decode_token_ids")) is not None:
        yield Problem("infer.sampling.trace_decode_token_ids", forced, "takes the place of the answers", "Remove it.")


def answers_have_one_form(recipe: Recipe) -> Iterator[Problem]:
    form = recipe.infer.sampling.get("structured_outputs")
    if not isinstance(form, Mapping):
        return
    given = [name for name in _FORMS if form.get(name) is not None]
    misspelled = set(form) - set(VLLM.table("structured_outputs"))
    if len(given) != 1 and not (misspelled and not given):
        message = f"must have exactly one of {', '.join(_FORMS)}, and has {' and '.join(given) or 'none'}"
        yield Problem(_KEY, None, message, "Keep one." if given else "Say which form answers must have.")
    for name in ("json", "structural_tag"):
        if isinstance(form.get(name), str) and not _is_json(form[name]):
            yield Problem(f"{_KEY}.{name}", form[name], "is not valid JSON", "Write a schema, or its JSON as a text.")
    choice = form.get("choice")
    if isinstance(choice, list) and not all(isinstance(each, str) for each in choice):
        yield Problem(f"{_KEY}.choice", choice, "must be a list of texts", 'Put words such as "yes" in quotes.')


def _is_json(text: str) -> bool:
    with suppress(ValueError, RecursionError):
        json.loads(text)
        return True
    return False


def options_of_a_form_are_the_engines(recipe: Recipe) -> Iterator[Problem]:
    form = recipe.infer.sampling.get("structured_outputs")
    if not isinstance(form, Mapping):
        return
    for name in filter(form.get, UNREAD):
        of_engine = name in VLLM.table("structured_outputs_config")
        hint = f"Set {_ENGINE_KEY}.{name}, with a backend that has it." if of_engine else "Remove it."
        yield Problem(f"{_KEY}.{name}", form[name], "is ignored by vLLM when a request sets it", hint)


def contents_are_computable(recipe: Recipe) -> Iterator[Problem]:
    for name, value, why in wrong_contents(recipe.infer.sampling):
        yield Problem(f"infer.sampling.{name}", value, why, "Correct it, or leave it out.")


def parameters_have_an_effect(recipe: Recipe) -> Iterator[Problem]:
    """As of requests (`effect`)."""
    parser = {"reasoning_parser": recipe.model.reasoning_parser}
    for name, value, why in without_effect(recipe.infer.sampling, Engine({**parser, **recipe.infer.engine_kwargs})):
        yield Problem(f"infer.sampling.{name}", value, why, "Remove it, or set what it needs.")


RULES = (
    an_answer_is_one_text,
    answers_have_one_form,
    options_of_a_form_are_the_engines,
    contents_are_computable,
    parameters_have_an_effect,
)
