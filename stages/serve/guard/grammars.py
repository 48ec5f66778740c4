"""What a request constrains its answer to: JSON schemas, regular expressions and grammars, their size and depth."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stages.serve.guard.refusal import bad_request

MAX_DEPTH = 64  # of JSON: an object in an object's properties is two levels deeper

Kind = Literal["json", "regex", "choice", "grammar", "structural_tag"]
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
    tools = body.get("tools") if body.get("tool_choice") not in (None, "none", "auto") else None
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict) and function.get("parameters"):
            yield Grammar(f"tools.{index}.function.parameters", "json", function["parameters"])


def refuse_large(found: list[Grammar], max_bytes: int) -> None:
    """Raise RefusedError for a constraint that is too deep, or that makes them too large together."""
    left = max_bytes
    for grammar in found:
        if depth(grammar) > MAX_DEPTH:
            message = f"{grammar.param} is nested more than {MAX_DEPTH} levels deep."
            raise bad_request(message, grammar.param, "grammar_too_deep")
        left -= len(grammar.text().encode(errors="replace"))
        if left < 0:
            message = f"{grammar.param} is too large: schemas and grammars may have {max_bytes} bytes in all."
            raise bad_request(message, grammar.param, "grammar_too_large")


def depth(grammar: Grammar) -> int:
    """Levels of lists and objects of a JSON value, also of one that is text; of groups of a regular expression."""
    value = grammar.value
    if isinstance(value, str) and grammar.kind == "regex":
        return _depth_of_groups(value)
    if isinstance(value, str) and grammar.kind in ("json", "structural_tag"):
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
