"""What a request constrains its answer to: JSON schemas, regular expressions and grammars, their size and depth."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stages.sections.json_schema import references_outside
from stages.serve.guard.refusal import bad_request

MAX_DEPTH = 64  # of JSON: an object in an object's properties is two levels deeper

Kind = Literal["json", "regex", "choice", "grammar", "structural_tag"]
_AS_JSON = ("json", "structural_tag")
_KINDS: tuple[Kind, ...] = ("json", "regex", "choice", "grammar", "structural_tag")


@dataclass(frozen=True)
class Grammar:
    """One constraint. param: where the request has it; kind and value: as vLLM's structured_outputs has them."""

    param: str
    kind: Kind
    value: Any

    def text(self) -> str:
        """The value as text."""
        return self.value if isinstance(self.value, str) else json.dumps(self.value, ensure_ascii=False)


def grammars_of(body: Mapping[str, Any]) -> Iterator[Grammar]:
    """Every constraint of a request's body. Values of a wrong type are left to the application to refuse."""
    given = body.get("structured_outputs")
    if isinstance(given, dict):
        for kind in _KINDS:
            if given.get(kind) is not None:
                yield Grammar(f"structured_outputs.{kind}", kind, given[kind])
    form = body.get("response_format")
    if isinstance(form, dict):
        schema = form.get("json_schema")
        if isinstance(schema, dict) and schema.get("schema") is not None:
            yield Grammar("response_format.json_schema.schema", "json", schema["schema"])
        if form.get("type") == "structural_tag":
            yield Grammar("response_format", "structural_tag", form)
    yield from _of_tools(body)


def _of_tools(body: Mapping[str, Any]) -> Iterator[Grammar]:
    """What constrains calls: where a call is required, names and parameters of all tools; where it is not, and one tool
    is strict, those of all tools but the ones with `strict: false`."""
    given, choice = body.get("tools"), body.get("tool_choice")
    tools = given if isinstance(given, list) else []
    functions = [tool.get("function") if isinstance(tool, dict) else None for tool in tools]
    forced = choice not in (None, "none", "auto")
    strict = any(isinstance(each, dict) and each.get("strict") is True for each in functions)
    if choice == "none" or not (forced or strict):
        return
    names: dict[str, None] = {}
    for index, function in enumerate(functions):
        if isinstance(function, dict) and (forced or function.get("strict") is not False):
            if function.get("parameters"):
                yield Grammar(f"tools.{index}.function.parameters", "json", function["parameters"])
            if isinstance(name := function.get("name"), str) and name:
                names[name] = None
    if names:
        yield Grammar("tools", "choice", list(names))


def refuse_large(found: list[Grammar], max_bytes: int) -> None:
    """Raise RefusedError for a constraint that is too deep, that makes them too large together, or that lies elsewhere:
    the engine fetches nothing, and would allow anything in its place."""
    left = max_bytes
    for grammar in found:
        if depth(grammar) > MAX_DEPTH:
            message = f"{grammar.param} is nested more than {MAX_DEPTH} levels deep."
            raise bad_request(message, grammar.param, "grammar_too_deep")
        left -= len(grammar.text().encode(errors="replace"))
        if left < 0:
            message = f"{grammar.param} is too large: schemas and grammars may have {max_bytes} bytes in all."
            raise bad_request(message, grammar.param, "grammar_too_large")
        for away in references_outside(json.loads(grammar.text())) if grammar.kind in _AS_JSON else ():
            message = f"{grammar.param} refers to {away[:100]!r}. A $ref begins with # and names a part of the schema."
            raise bad_request(message, grammar.param, "invalid_grammar")


def depth(grammar: Grammar) -> int:
    """Levels of lists and objects of a JSON value, also of one that is text; of groups of a regular expression."""
    value = grammar.value
    if isinstance(value, str) and grammar.kind == "regex":
        return _depth_of_groups(value)
    if isinstance(value, str) and grammar.kind in _AS_JSON:
        try:
            value = json.loads(value)
        except RecursionError:
            return MAX_DEPTH + 1
        except ValueError:
            raise bad_request(f"{grammar.param} is not valid JSON.", grammar.param, "invalid_grammar") from None
    level, deepest = [value], 0
    while level := [each for each in level if isinstance(each, dict | list)]:
        deepest += 1
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return deepest


def _depth_of_groups(pattern: str) -> int:
    level = deepest = 0
    for character in re.sub(r"\\.", "", pattern, flags=re.DOTALL):
        level = max(0, level + (character == "(") - (character == ")"))
        deepest = max(deepest, level)
    return deepest
