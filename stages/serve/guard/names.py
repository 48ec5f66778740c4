"""The parameters that a request may have: those of the application's request models, whichever vLLM is installed."""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from stages.serve.guard.kinds import Kind, kinds_of
from stages.serve.guard.refusal import bad_request

Names = Mapping[str, "Names | None"]  # None: what is inside is not checked here

_LONGEST = 100
# Names that clients of other versions and servers send, and what they are now.
_PRESENT = {
    "guided_json": "structured_outputs.json",
    "guided_regex": "structured_outputs.regex",
    "guided_choice": "structured_outputs.choice",
    "guided_grammar": "structured_outputs.grammar",
    "guided_json_object": "structured_outputs.json_object",
    "guided_whitespace_pattern": "structured_outputs.whitespace_pattern",
    "max_new_tokens": "max_tokens",
    "max_length": "max_tokens",
    "best_of": "n",
    "num_return_sequences": "n",
    "num_beams": "n",
    "functions": "tools",
    "function_call": "tool_choice",
}


@dataclasses.dataclass(frozen=True)
class Parameters:
    """Of a route: the names that there are, and which of them take a number or a boolean."""

    names: Names
    kinds: Mapping[str, Kind]


def parameters_of_routes(routes: Iterable[Any]) -> dict[str, Parameters]:
    """By path, of FastAPI's routes that read a JSON object."""
    found: dict[str, Parameters] = {}
    for route in routes:
        info = getattr(getattr(route, "body_field", None), "field_info", None)
        annotation = info.annotation if info is not None and type(info).__name__ == "Body" else None
        if parameters := parameters_of(annotation):
            found[route.path] = parameters
    return found


def parameters_of(annotation: Any) -> Parameters | None:
    """Of a request model; None where any name may be."""
    names = names_of(annotation)
    return Parameters(names, kinds_of(annotation).inner) if names else None


def names_of(annotation: Any) -> Names | None:
    """The names of a pydantic model, a dataclass, or what a list or union of them has; None where any name may be."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return names_of(inner[0])
    if origin in (Union, types.UnionType, list):
        return _together([names_of(each) for each in inner if not _is_plain(each)])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {field.alias or key: names_of(field.annotation) for key, field in annotation.model_fields.items()}
    if dataclasses.is_dataclass(annotation):
        return {field.name: None for field in dataclasses.fields(annotation) if not field.name.startswith("_")}
    return None


def _is_plain(annotation: Any) -> bool:
    """Whether a value of the type has no names."""
    return get_origin(annotation) is Literal or annotation in (str, int, float, bool, bytes, types.NoneType)


def _together(found: list[Names | None]) -> Names | None:
    """What any of a union's types has; None where one of them may have any name, or there is none."""
    together: dict[str, Names | None] = {}
    for names in found:
        if names is None:
            return None
        for name, inner in names.items():
            together[name] = _together([together[name], inner]) if name in together else inner
    return together or None


def refuse_unknown(body: Mapping[str, Any], names: Names) -> None:
    """Raise RefusedError naming the first parameter that there is not, and its present or nearest name."""
    for path in unknown(body, names):
        *outer, name = path
        inner: Any = names
        for each in outer:
            inner = inner[each]
        instead = _instead(name, inner)
        hint = f" Use {'.'.join([*outer, instead])}." if instead else ""
        dotted = ".".join(path)[:200]
        raise bad_request(f"There is no parameter {dotted!r}.{hint}", dotted, "unknown_parameter")


def unknown(value: Any, names: Names) -> Iterator[tuple[str, ...]]:
    """Paths of the keys that are not among the names."""
    if isinstance(value, list):
        for each in value:
            yield from unknown(each, names)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key not in names:
                yield (key,)
            elif (below := names[key]) is not None:
                yield from ((key, *path) for path in unknown(inner, below))


def _instead(name: str, names: Names) -> str | None:
    if len(name) > _LONGEST:  # the comparison with each name takes as long as it is
        return None
    present = _PRESENT.get(name)
    if present and present.split(".")[0] in names:
        return present
    return next(iter(difflib.get_close_matches(name, names, 1, 0.75)), None)
