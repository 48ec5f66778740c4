"""Which values of sampling parameters vLLM can compute with: of a recipe's `infer.sampling`, and of requests alike.

vLLM checks some of them, lets its engine's process fail at others, and answers nonsense to the rest. Whether the
model's vocabulary has a token is left to vLLM, which knows it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from runner.recipe.arguments import Entry, accepts, allowed
from stages.engines.vllm.mappings import VLLM
from stages.engines.vllm.sampling.effect import Engine, Wrong, without_effect
from stages.sections.json_schema import references_outside

# What requests call a sampling parameter besides.
_OF_REQUESTS = {"max_completion_tokens": "max_tokens", "top_logprobs": "logprobs"}
# StructuredOutputsParams has these, but nothing in vLLM 0.29 reads them: its backends look at the engine's
# StructuredOutputsConfig alone (vllm/v1/structured_output/backend_*.py).
UNREAD = ("disable_any_whitespace", "disable_additional_properties", "whitespace_pattern")
_MOST = 2**31 - 1
_TOKEN = re.compile(r"0|[1-9][0-9]{0,8}")
# A power of the answer's length, which must stay a number of 64 bits.
_LENGTH_PENALTY: Entry = {"type": "float", "ge": -50, "le": 50}
_BIAS: Entry = {"type": "float", "ge": -100, "le": 100}
_ANY = Engine()
_TOKENS = ("stop_token_ids", "allowed_token_ids", "logprob_token_ids", "trace_decode_token_ids", "prompt")


def wrong_values(given: Mapping[str, Any], engine: Engine = _ANY) -> Iterator[Wrong]:
    """The values that vLLM cannot compute with or would not use, of the body of a request.

    Parameters that there are not, and values of another kind, are for others to refuse.
    """
    yield from _outside(given, VLLM.table("sampling"))
    detection = given.get("repetition_detection")
    if isinstance(detection, Mapping):
        for name, value, why in _outside(detection, VLLM.table("repetition_detection")):
            yield f"repetition_detection.{name}", value, why
    yield from wrong_contents(given)
    yield from _lengths_and_options(given)
    yield from without_effect(given, engine)


def wrong_contents(given: Mapping[str, Any]) -> Iterator[Wrong]:
    """Those in lists and mappings, and empty texts. given: a request's body, or `infer.sampling`."""
    for name in _TOKENS:
        yield from _wrong_tokens(name, given.get(name))
    for name in ("stop", "bad_words"):
        yield from _wrong_texts(name, given.get(name))
    yield from _wrong_biases(given.get("logit_bias"))
    yield from _wrong_form(given.get("structured_outputs"))


def _lengths_and_options(given: Mapping[str, Any]) -> Iterator[Wrong]:
    penalty = given.get("length_penalty")
    if _is_number(penalty) and not accepts(_LENGTH_PENALTY, penalty):
        yield "length_penalty", penalty, f"must be {allowed(_LENGTH_PENALTY)}"
    form = given.get("structured_outputs")
    options = form if isinstance(form, Mapping) else {}
    for name in filter(options.get, UNREAD):
        yield f"structured_outputs.{name}", options[name], "is ignored by vLLM when a request sets it"


def _outside(given: Mapping[str, Any], table: Mapping[str, Entry]) -> Iterator[Wrong]:
    for name, value in given.items():
        entry = table.get(_OF_REQUESTS.get(name, name))
        if entry is not None and _is_number(value) and not accepts(entry, _whole(value)):
            yield name, value, f"must be {allowed(entry)}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: Any) -> Any:
    """A whole number as an int: JSON has one kind of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_token(value: Any) -> bool:
    value = _whole(value)
    return type(value) is int and 0 <= value <= _MOST


def _wrong_tokens(name: str, value: Any) -> Iterator[Wrong]:
    """Of a list of token ids; of prompts also lists of such, and texts."""
    if not isinstance(value, list):
        return
    if not value and name == "allowed_token_ids":
        yield name, value, "must have a token id, or be left out"
    if set(map(type, value)) == {int} and min(value) >= 0 and max(value) <= _MOST:  # of a long prompt in milliseconds
        return
    for index, each in enumerate(value):
        inner = each if isinstance(each, list) and name == "prompt" else [each]
        wrong = next((token for token in inner if not _is_token(token)), None)
        if wrong is not None and not (isinstance(each, str) and name == "prompt"):
            yield f"{name}[{index}]", wrong, f"must be a token id, a whole number from 0 to {_MOST}"
            return


def _wrong_texts(name: str, value: Any) -> Iterator[Wrong]:
    if value == "" or (isinstance(value, list) and "" in value):
        yield name, value, "must have no empty text"
    elif isinstance(value, list) and not all(isinstance(each, str) for each in value):
        yield name, value, "must be texts"


def _wrong_biases(value: Any) -> Iterator[Wrong]:
    """vLLM takes what is beyond 100 as 100, and of two spellings of a token the last."""
    for token, bias in value.items() if isinstance(value, Mapping) else ():
        if not _TOKEN.fullmatch(str(token)):
            yield "logit_bias", token, "must have token ids as names, whole numbers from 0 on"
        elif not accepts(_BIAS, bias):
            yield f"logit_bias.{token}", bias, f"must be {allowed(_BIAS)}"


def _parsed(schema: Any) -> Any:
    try:
        return json.loads(schema) if isinstance(schema, str) else schema
    except (ValueError, RecursionError):  # for others to refuse
        return None


def _wrong_form(value: Any) -> Iterator[Wrong]:
    """Of structured outputs: an empty text constrains nothing, or allows nothing but the end of the answer."""
    if not isinstance(value, Mapping):
        return
    for kind in ("json", "regex", "grammar", "structural_tag"):
        text = value.get(kind)
        if isinstance(text, str) and not (text if kind == "regex" else text.strip()):
            yield f"structured_outputs.{kind}", text, "must not be empty"
    for target in references_outside(_parsed(value.get("json"))):
        yield "structured_outputs.json", target, "is outside of the schema: a $ref begins with #"
    choice = value.get("choice")
    if isinstance(choice, list) and not any(choice):
        yield "structured_outputs.choice", choice, "must be a list of texts that are not all empty"
    if value.get("json_object") is False:
        yield "structured_outputs.json_object", False, "must be true, or be left out"
